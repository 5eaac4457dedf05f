// Describes elements as plain data, and changes the page into what is described. Elements that stay keep their focus,
// selection and scroll position. Text is only ever set as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

/** Describe an element. `attributes.key` tells it from its siblings; `attributes.on` has event handlers by event. */
export function h(tag, attributes, ...children) {
  const { key, on, ...rest } = attributes ?? {};
  const flat = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
  return { tag, key, on, attributes: rest, children: flat };
}

/** Make the children of `parent` those that `wanted` describes. */
export function render(parent, wanted) {
  const focused = document.activeElement;
  patch(parent, [wanted].flat(Infinity).filter(Boolean), parent.namespaceURI === SVG);
  if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}

function patch(parent, wanted, inSvg) {
  const keyed = new Map(), unkeyed = [];
  for (const node of parent.childNodes) {
    if (node.meshKey === undefined) unkeyed.push(node);
    else keyed.set(node.meshKey, node);
  }
  let at = parent.firstChild;
  const kept = new Set();
  for (const item of wanted) {
    let node = find(item, keyed, unkeyed, kept);
    if (node) kept.add(node);
    else node = create(item, inSvg);
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
    kept.add(node);
    update(node, item, inSvg);
  }
  for (const node of [...parent.childNodes]) if (!kept.has(node)) node.remove();
}

function find(item, keyed, unkeyed, kept) {
  const name = typeof item === "object" ? item.tag : "#text";
  const fits = (node) => node && !kept.has(node) && node.nodeName.toLowerCase() === name.toLowerCase();
  if (item.key !== undefined) {
    const node = keyed.get(String(item.key));
    return fits(node) ? node : null;
  }
  return unkeyed.find(fits) ?? null;
}

function create(item, inSvg) {
  if (typeof item !== "object") return document.createTextNode(String(item));
  const node = inSvg || item.tag === "svg" ? document.createElementNS(SVG, item.tag) : document.createElement(item.tag);
  if (item.key !== undefined) node.meshKey = String(item.key);
  return node;
}

function update(node, item, inSvg) {
  if (typeof item !== "object") {
    if (node.data !== String(item)) node.data = String(item);
    return;
  }
  const before = node.meshAttributes ?? {};
  for (const name of Object.keys(before)) if (!(name in item.attributes)) node.removeAttribute(name);
  for (const [name, value] of Object.entries(item.attributes)) {
    if (name === "value" || name === "checked") {
      if (node !== document.activeElement || name === "checked") node[name] = value;
    } else if (value === null || value === undefined || value === false) node.removeAttribute(name);
    else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value === true ? "" : String(value));
  }
  node.meshAttributes = item.attributes;
  for (const name of Object.keys(node.meshOn ?? {})) if (!item.on?.[name]) node[`on${name}`] = null;
  for (const [name, handler] of Object.entries(item.on ?? {})) node[`on${name}`] = handler;
  node.meshOn = item.on;
  patch(node, item.children, inSvg || item.tag === "svg");
}
