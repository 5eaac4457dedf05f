// Computes where the workloads of a graph are drawn: callers are left of those that they call, and each namespace has a
// lane of its own. The result depends on the workloads and edges alone, not on their order, so that nothing moves while
// only numbers change. Pure.

export const NODE = { width: 188, height: 54 };
const COLUMN = 236;     // space between columns, in which lines turn and labels stand
const ROW = 26;         // space between the nodes of a column
const LANE = { pad: 18, head: 30, gap: 18 };
const LABEL = { width: 142, line: 15, pad: 6 };
const MARGIN = 8;
const SWEEPS = 12;
const SHIFTS = [0, -20, 20, -40, 40, -60, 60];          // of a label, up and down
const MAX_SHIFT_COST = 61;      // a label that costs less is shifted, but overlaps nothing

const byId = (a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);
const key = (edge) => `${edge.from} ${edge.to}`;

/**
 * Lay out a graph. `nodes` have `id` and `group`; `edges` have `from`, `to` and `lines`, the height of their label in
 * lines of text. Returns `width` and `height`, `nodes` and `groups` as rectangles, and `edges` with their `path` and
 * the rectangle of their `label`.
 */
export function layout(nodes, edges) {
  const all = [...nodes].sort(byId).map((node) => ({ ...node }));
  const byName = new Map(all.map((node) => [node.id, node]));
  const links = edges
    .filter((edge) => byName.has(edge.from) && byName.has(edge.to))
    .map((edge) => ({ ...edge, id: key(edge) })).sort(byId);
  rank(all, links.filter((edge) => edge.from !== edge.to));
  const stops = all.map((node) => ({ ...node, height: NODE.height, before: [], after: [] }));
  const stopOf = new Map(stops.map((stop) => [stop.id, stop]));
  for (const edge of links) route(edge, stopOf, stops);
  const lanes = arrange(stops);
  const columns = Math.max(0, ...stops.map((stop) => stop.rank)) + 1;
  const width = 2 * (MARGIN + LANE.pad) + columns * NODE.width + (columns - 1) * COLUMN;
  const last = lanes.at(-1);
  const back = links.some((edge) => edge.back) ? 40 : 0;
  for (const stop of stops) stop.x = MARGIN + LANE.pad + stop.rank * (NODE.width + COLUMN);
  ports(links);
  const drawn = links.map((edge) => ({ ...draw(edge), edge }));
  labels(drawn, stops.filter((stop) => !stop.edge), width);
  const lowest = Math.max(last ? last.y + last.height + back : 0, ...drawn.map(({ label }) => label.y + label.height));
  return {
    width, height: lowest + MARGIN,
    nodes: stops.filter((stop) => !stop.edge).map(({ id, x, y, height }) => ({ id, x, y, width: NODE.width, height })),
    groups: lanes.map(({ name, y, height }) => ({ name, x: MARGIN, y, width: width - 2 * MARGIN, height })),
    edges: drawn.map(({ edge, path, label }) => ({ from: edge.from, to: edge.to, path, label })),
  };
}

/** Choose the column of each node: right of all that call it. In a cycle of calls one edge leads back. */
function rank(nodes, edges) {
  const out = new Map(nodes.map((node) => [node.id, []]));
  const callers = new Map(nodes.map((node) => [node.id, 0]));
  for (const edge of edges) {
    out.get(edge.from).push(edge);
    callers.set(edge.to, callers.get(edge.to) + 1);
  }
  const state = new Map();
  const order = [];
  const visit = (start) => {
    const stack = [[start, 0]];
    state.set(start, "open");
    while (stack.length) {
      const top = stack.at(-1);
      const edge = out.get(top[0])[top[1]++];
      if (!edge) {
        state.set(top[0], "done");
        order.push(top[0]);
        stack.pop();
      } else if (state.get(edge.to) === "open") edge.back = true;
      else if (!state.has(edge.to)) {
        state.set(edge.to, "open");
        stack.push([edge.to, 0]);
      }
    }
  };
  for (const node of nodes) if (!callers.get(node.id) && !state.has(node.id)) visit(node.id);
  for (const node of nodes) if (!state.has(node.id)) visit(node.id);
  const ranks = new Map(nodes.map((node) => [node.id, 0]));
  for (const id of order.reverse()) {
    for (const edge of out.get(id)) if (!edge.back) ranks.set(edge.to, Math.max(ranks.get(edge.to), ranks.get(id) + 1));
  }
  // A node that nobody calls is moved next to those that it calls.
  for (const node of nodes) {
    const forward = out.get(node.id).filter((edge) => !edge.back);
    if (!callers.get(node.id) && forward.length) {
      ranks.set(node.id, Math.min(...forward.map((edge) => ranks.get(edge.to))) - 1);
    }
  }
  for (const node of nodes) node.rank = ranks.get(node.id);
}

/** Lead an edge through the columns between its ends, by a stop of its own in each. */
function route(edge, stopOf, stops) {
  const source = stopOf.get(edge.from), target = stopOf.get(edge.to);
  edge.back ||= target.rank <= source.rank;
  edge.stops = [source, target];
  if (edge.back) return;
  const between = [];
  for (let column = source.rank + 1; column < target.rank; column++) {
    const id = `${edge.id} ${column}`;
    const stop = { id, group: target.group, rank: column, height: 12, edge, before: [], after: [] };
    between.push(stop);
    stops.push(stop);
  }
  edge.stops = [source, ...between, target];
  for (let at = 1; at < edge.stops.length; at++) {
    edge.stops[at - 1].after.push(edge.stops[at]);
    edge.stops[at].before.push(edge.stops[at - 1]);
  }
}

/** Arrange lanes from top to bottom, and in each the columns in an order with few crossings. */
function arrange(stops) {
  const names = [...new Set(stops.map((stop) => stop.group))];
  const nodesOf = (name) => stops.filter((stop) => stop.group === name && !stop.edge);
  const first = (name) => Math.min(...nodesOf(name).map((stop) => stop.rank));
  names.sort((a, b) => first(a) - first(b) || (a < b ? -1 : 1));
  const lanes = names.map((name) => {
    const columns = [];
    for (const stop of stops.filter((each) => each.group === name)) (columns[stop.rank] ??= []).push(stop);
    return { name, columns: columns.filter(Boolean).map((column) => column.sort(byId)) };
  });
  const place = () => {
    let y = MARGIN;
    for (const lane of lanes) {
      const tall = (column) => column.reduce((sum, stop) => sum + stop.height, 0) + (column.length - 1) * ROW;
      const inner = Math.max(...lane.columns.map(tall));
      lane.y = y;
      lane.height = inner + 2 * LANE.pad + LANE.head - 8;
      for (const column of lane.columns) {
        let at = y + LANE.head + LANE.pad - 8 + (inner - tall(column)) / 2;
        for (const stop of column) {
          stop.y = at;
          at += stop.height + ROW;
        }
      }
      y += lane.height + LANE.gap;
    }
  };
  place();
  const middle = (stop) => stop.y + stop.height / 2;
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const side = sweep % 2 ? "after" : "before";
    for (const lane of lanes) {
      for (const column of lane.columns) {
        const wanted = new Map(column.map((stop) => {
          const near = stop[side].length ? stop[side] : [stop];
          return [stop, near.reduce((sum, each) => sum + middle(each), 0) / near.length];
        }));
        column.sort((a, b) => wanted.get(a) - wanted.get(b) || byId(a, b));
      }
    }
    place();
  }
  return lanes;
}

/** Choose where edges leave and reach their nodes: spread over the side, in the order of their other ends. */
function ports(edges) {
  const sides = new Map();
  const at = (stop, side, edge, other) => {
    const name = `${side} ${stop.id}`;
    if (!sides.has(name)) sides.set(name, { stop, uses: [] });
    sides.get(name).uses.push({ edge, side, other });
  };
  for (const edge of edges) {
    if (edge.back) continue;
    at(edge.stops[0], "out", edge, edge.stops[1]);
    at(edge.stops.at(-1), "in", edge, edge.stops.at(-2));
  }
  for (const { stop, uses } of sides.values()) {
    uses.sort((a, b) => a.other.y - b.other.y || byId(a.edge, b.edge));
    const room = Math.min(14, (stop.height - 20) / Math.max(1, uses.length - 1));
    uses.forEach(({ edge, side }, index) => {
      edge[side] = stop.y + stop.height / 2 + (index - (uses.length - 1) / 2) * room;
    });
  }
  const degrees = (side, stop) => sides.get(`${side} ${stop.id}`)?.uses.length ?? 0;
  for (const edge of edges) edge.fans = edge.back || degrees("out", edge.stops[0]) >= degrees("in", edge.stops.at(-1));
}

const STRETCH = LABEL.width + 20;       // a line runs straight beside its label

/**
 * Part of a path, from one column to the next: a turn, and a straight stretch for the label after it, or before it when
 * the turn is `late`.
 */
function run(x0, y0, x1, y1, late) {
  const from = late ? x0 + STRETCH : x0, to = late ? x1 : x1 - STRETCH;
  const bend = (to - from) / 2;
  const turn = `C${at(from + bend, y0)}, ${at(to - bend, y1)}, ${at(to, y1)}`;
  return late ? `L${at(from, y0)} ${turn}` : `${turn} L${at(x1, y1)}`;
}

const round = (value) => Math.round(value * 10) / 10;
const at = (x, y) => `${round(x)} ${round(y)}`;

/** The path of an edge, and the places where its label may stand, the best first. */
function draw(edge) {
  const source = edge.stops[0], target = edge.stops.at(-1);
  if (edge.back) {
    const x0 = source.x + NODE.width * 0.5, y0 = source.y + source.height;
    const x1 = target.x + NODE.width * (source === target ? 0.8 : 0.4), y1 = target.y + target.height;
    const low = Math.max(y0, y1) + 34;
    return { path: `M${at(x0, y0)} C${at(x0, low)}, ${at(x1, low)}, ${at(x1, y1)}`, spots: [[(x0 + x1) / 2, low - 8]] };
  }
  let x = source.x + NODE.width, y = edge.out, path = `M${at(x, y)}`;
  for (const stop of edge.stops.slice(1)) {
    const end = stop === target ? stop.x - 5 : stop.x;
    const endY = stop === target ? edge.in : stop.y + stop.height / 2;
    path += ` ${run(x, y, end, endY, !edge.fans)}`;
    if (stop !== target) path += ` L${at(stop.x + NODE.width, endY)}`;
    [x, y] = [stop.x + NODE.width, endY];
  }
  const ends = [[target.x - STRETCH / 2 - 6, edge.in], [source.x + NODE.width + STRETCH / 2, edge.out]];
  return { path, spots: edge.fans ? ends : ends.reverse() };
}

/** Choose a place for each label on its edge, if possible where it overlaps no node and no other label. */
function labels(drawn, nodes, width) {
  const taken = nodes.map((node) => ({ x: node.x, y: node.y, width: NODE.width, height: node.height }));
  const overlap = (a, b) =>
    Math.max(0, Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x) + 4) *
    Math.max(0, Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y) + 4);
  for (const each of drawn) {
    const height = each.edge.lines * LABEL.line + LABEL.pad;
    let best = null;
    for (const [x, y] of each.spots) {
      for (const shift of SHIFTS) {
        const left = Math.max(MARGIN, Math.min(width - MARGIN - LABEL.width, x - LABEL.width / 2));
        const box = { x: round(left), y: round(Math.max(MARGIN, y - height / 2 + shift)), width: LABEL.width, height };
        const cost = taken.reduce((sum, other) => sum + overlap(box, other), 0) + Math.abs(shift);
        if (!best || cost < best.cost) best = { box, cost };
      }
      if (best.cost < MAX_SHIFT_COST) break;
    }
    each.label = best.box;
    taken.push(best.box);
  }
}
