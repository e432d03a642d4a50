// The fleet as this page knows it: filled by the stream, drawn by whoever follows.
//
// A picture's nodes and pairs are arrays in the order of their names. Each of them, and the picture itself, carries
// `heard`, the page's own time when it was so: its ages (`*_s`) count from then.

import { Stream } from './stream.js';

// Changes that arrive faster than this are not all drawn.
const DRAW_EVERY_MS = 250;

export const store = { fleet: null };

const followers = new Set();
const listeners = new Map();

export const stream = new Stream('/api/v1/stream', {
  heard(topic, data) {
    if (topic === 'fleet') take(JSON.parse(data));
    else if (topic === 'change') change(JSON.parse(data));
    const listening = listeners.get(topic);
    if (listening) {
      const message = JSON.parse(data);
      for (const listener of listening) listener(message);
    }
    drawSoon();
  },
  opened() {
    for (const follower of followers) follower.opened?.();
  },
  refused() {
    for (const follower of followers) follower.refused?.();
  },
});

function take(fleet) {
  const heard = performance.now();
  fleet.heard = fleet.quorum.heard = heard;
  for (const part of [...fleet.nodes, ...fleet.pairs]) part.heard = heard - 1000 * part.drawn_s;
  store.fleet = fleet;
}

function change({ head, nodes, pairs, gone_nodes: goneNodes, gone_pairs: gonePairs }) {
  const { fleet } = store;
  if (!fleet) return;
  const heard = performance.now();
  for (const part of [head, head.quorum, ...nodes, ...pairs]) part.heard = heard;
  head.nodes = merged(fleet.nodes, nodes, goneNodes);
  head.pairs = merged(fleet.pairs, pairs, gonePairs);
  store.fleet = head;
}

// Where each name stands in an array.
const places = new WeakMap();

function placesIn(parts) {
  let found = places.get(parts);
  if (!found) {
    found = new Map(parts.map((part, place) => [part.name, place]));
    places.set(parts, found);
  }
  return found;
}

// The same array while its names stay the same.
function merged(parts, fresh, gone) {
  const known = placesIn(parts);
  const came = [];
  for (const part of fresh) {
    const place = known.get(part.name);
    if (place === undefined) came.push(part);
    else parts[place] = part;
  }
  if (!came.length && !gone.length) return parts;
  const left = new Set(gone);
  return [...parts.filter((part) => !left.has(part.name)), ...came].sort((a, b) => (a.name < b.name ? -1 : 1));
}

// The part of that name, among `fleet.nodes` or `fleet.pairs`.
export const named = (parts, name) => parts[placesIn(parts).get(name)];

// Seconds since a node, a pair or the picture came.
export const elapsed = (part) => (performance.now() - part.heard) / 1000;

// `draw()` after changes, at most every DRAW_EVERY_MS, and not while nobody can see it; `opened()` per new connection;
// `refused()` when the controller answers but gives no stream.
export function follow(follower) {
  followers.add(follower);
  drawSoon();
}

// `listener(data)` for each message of the topic: event, ledger.
export function listen(topic, listener) {
  listeners.set(topic, [...(listeners.get(topic) ?? []), listener]);
}

let drawing = 0;
let drawnAt = 0;

export function drawSoon() {
  if (drawing || document.hidden) return;
  drawing = setTimeout(drawNow, Math.max(0, drawnAt + DRAW_EVERY_MS - performance.now()));
}

export function drawNow() {
  clearTimeout(drawing);
  drawing = 0;
  drawnAt = performance.now();
  for (const follower of followers) follower.draw?.();
}

document.addEventListener('visibilitychange', drawSoon);

// --- one browser, many pages ---------------------------------------------------------------------------------------------

// A browser makes six connections to a host, and a stream keeps one: with a stream in each of six tabs no tab could ask
// for anything. So a page that nobody sees gives up its stream when so many others were opened or looked at since.
const OTHERS = 3;
const pages = new BroadcastChannel('vagus pages');
let others = 0;

pages.onmessage = () => {
  others += 1;
  if (document.hidden && others >= OTHERS) stream.close();
};

function looked() {
  if (document.hidden) return;
  others = 0;
  pages.postMessage('looked at');
  if (stream.closed) stream.open();
}

// Opens the stream, of a page that is made.
export function begin() {
  pages.postMessage('opened');
  stream.open();
  document.addEventListener('visibilitychange', looked);
}
