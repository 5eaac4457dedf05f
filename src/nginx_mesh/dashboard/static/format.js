// Numbers and moments as people read them.

const DASH = "–";

/** Requests per second. */
export function rate(value) {
  if (!value) return "0/s";
  if (value < 0.1) return `${(value * 60).toFixed(1)}/min`;
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value).toLocaleString("en")}/s`;
}

/** Bytes per second. */
export function bytes(value) {
  const units = ["B/s", "kB/s", "MB/s", "GB/s"];
  let scaled = value, at = 0;
  while (scaled >= 999.5 && at < units.length - 1) {
    scaled /= 1000;
    at++;
  }
  return `${scaled < 9.95 && at ? scaled.toFixed(1) : Math.round(scaled)} ${units[at]}`;
}

/** A share from 0 to 1 in percent. Only the whole is 100 %: what is less is never rounded up to it. */
export function share(value) {
  if (value === null || value === undefined) return DASH;
  const percent = value * 100;
  if (value >= 1 - 1e-9) return "100%";
  if (percent > 99) return `${Math.min(percent, 99.99).toFixed(2)}%`;
  return `${percent.toFixed(percent && percent < 10 ? 1 : 0)}%`;
}

/** Milliseconds. */
export function time(ms) {
  if (ms === null || ms === undefined) return DASH;
  if (ms === 0) return "0 ms";
  if (ms >= 10000) return `${Math.round(ms / 1000)} s`;
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

/** Milliseconds; the unit is left out unless it is seconds. */
export function brief(ms) {
  return time(ms).replace(" ms", "");
}

/** A length of time in seconds, in its largest unit or the two largest. */
export function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => whole >= size);
  if (first < 0) return "0 s";
  const [unit, size] = units[first];
  const next = units[first + 1];
  const rest = next ? Math.floor((whole % size) / next[1]) : 0;
  const detail = rest && whole / size < 10 && unit !== "min" ? ` ${rest} ${next[0]}` : "";
  return `${Math.floor(whole / size)} ${unit}${detail}`;
}

/** A time in seconds since the epoch, as date and time in the reader's time zone. */
export function moment(seconds) {
  return new Date(seconds * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

/** An RFC 3339 time in seconds since the epoch. */
export function parsed(text) {
  return Date.parse(text) / 1000;
}

/** A number and its noun. */
export function plural(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}
