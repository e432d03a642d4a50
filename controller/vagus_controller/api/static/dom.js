// Elements from data, and the least change that turns what is shown into what should be shown.
// Data from the network becomes text nodes and attribute values only; there is no way from here to markup.

const SVG = 'http://www.w3.org/2000/svg';
const SVG_TAGS = new Set(['svg', 'path', 'circle', 'rect', 'line', 'g', 'title']);

// h('p.note', {id: 'x'}, 'text', child, [children]): null, false and undefined children are left out.
export function h(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split('.');
  const element = SVG_TAGS.has(name) ? document.createElementNS(SVG, name) : document.createElement(name);
  if (classes.length) element.setAttribute('class', classes.join(' '));
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(key, value === true ? '' : String(value));
  }
  for (const child of children.flat(3)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

// Make the children of `target` equal to `fresh`, keeping elements (and so focus, scroll and text selection) where the
// tag and data-key agree.
export function replaceChildren(target, ...fresh) {
  const next = fresh.flat(3).filter((child) => child instanceof Node);
  const keyed = new Map();
  for (const child of target.children) if (child.dataset?.key !== undefined) keyed.set(child.dataset.key, child);
  let cursor = target.firstChild;
  for (const wanted of next) {
    const key = wanted.dataset?.key;
    let match = key !== undefined ? keyed.get(key) : cursor;
    if (match && key === undefined && match.dataset?.key !== undefined) match = null;
    if (match && !alike(match, wanted)) match = null;
    if (!match) {
      target.insertBefore(wanted, cursor);
      continue;
    }
    if (match === cursor) cursor = cursor.nextSibling;
    else place(target, match, cursor);
    update(match, wanted);
  }
  while (cursor) {
    const gone = cursor;
    cursor = cursor.nextSibling;
    gone.remove();
  }
}

// Moves `element`, which stands already, before another; who is in it with the keyboard stays.
export function place(parent, element, before) {
  const focused = element.contains(document.activeElement) ? document.activeElement : null;
  parent.insertBefore(element, before);
  focused?.focus({ preventScroll: true });
}

const drawn = new WeakMap();

// The same, unless `inputs` are what they were when `target` was drawn last: then nothing is built.
export function redraw(target, inputs, build) {
  const before = drawn.get(target);
  if (before && before.length === inputs.length && before.every((one, at) => one === inputs[at])) return;
  drawn.set(target, inputs);
  replaceChildren(target, ...build());
}

function alike(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName;
}

function update(old, wanted) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== wanted.data) old.data = wanted.data;
    return;
  }
  // Whether a disclosure is open is the reader's business once it stands.
  const theirs = old.nodeName === 'DETAILS' ? 'open' : '';
  for (const { name } of [...old.attributes]) {
    if (name !== theirs && !wanted.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (name !== theirs && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  replaceChildren(old, [...wanted.childNodes]);
}

// Shapes on a 16-unit grid: every state has its own, so colour is never the only sign.
const SHAPES = {
  __proto__: null,
  up: [['circle', { cx: 8, cy: 8, r: 5.5, class: 'fill' }]],
  ok: [
    ['circle', { cx: 8, cy: 8, r: 7, class: 'fill' }],
    ['path', { d: 'M4.9 8.3l2.2 2.2 4.1-4.6', class: 'cut' }],
  ],
  info: [
    ['circle', { cx: 8, cy: 8, r: 7, class: 'fill' }],
    ['path', { d: 'M8 7.4v4M8 4.5v.3', class: 'cut' }],
  ],
  warning: [
    ['path', { d: 'M8 1.6L15 14H1z', class: 'fill round' }],
    ['path', { d: 'M8 6v3.7M8 11.8v.2', class: 'cut' }],
  ],
  critical: [
    ['path', { d: 'M5.1 1h5.8L15 5.1v5.8L10.9 15H5.1L1 10.9V5.1z', class: 'fill round' }],
    ['path', { d: 'M5.6 5.6l4.8 4.8M10.4 5.6l-4.8 4.8', class: 'cut' }],
  ],
  unknown: [['circle', { cx: 8, cy: 8, r: 5.5, class: 'line', 'stroke-dasharray': '2.4 2.2' }]],
  degraded: [['path', { d: 'M8 2.5L14 13.5H2z', class: 'fill round' }]],
  suspect: [['path', { d: 'M8 2.5L14 13.5H2z', class: 'line round' }]],
  relayed: [['path', { d: 'M8 1.8L14.2 8 8 14.2 1.8 8z', class: 'fill round' }]],
  'one-way': [
    ['circle', { cx: 8, cy: 8, r: 5.5, class: 'line' }],
    ['path', { d: 'M8 2.5a5.5 5.5 0 0 1 0 11z', class: 'fill' }],
  ],
  down: [['path', { d: 'M3.5 3.5l9 9M12.5 3.5l-9 9', class: 'line bold' }]],
  'direct-but-dead': [['path', { d: 'M3.5 3.5l9 9M12.5 3.5l-9 9', class: 'line bold' }]],
  unproven: [['circle', { cx: 8, cy: 8, r: 5.5, class: 'line', 'stroke-dasharray': '2.4 2.2' }]],
};

// `size`: in pixels where text has its usual size; larger where all text is (base.css).
export function icon(shape, severity = 'unknown', size = 16) {
  const parts = (SHAPES[shape] ?? SHAPES[severity] ?? SHAPES.unknown).map(([tag, attributes]) => h(tag, attributes));
  return h(`svg.icon.${severity}`, { viewBox: '0 0 16 16', width: `${size / 16}rem`, height: `${size / 16}rem`, 'aria-hidden': 'true' }, parts);
}
