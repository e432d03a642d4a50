// The fleet as this page knows it: filled by the stream, drawn by whoever follows.
//
// A picture's nodes and pairs are arrays in the order of their names. Each of them, and the picture itself, carries
// `heard`, the page's own time when it came: its ages (`*_s`) count from then.

import { Stream } from './stream.js';

// Changes that arrive faster than this are not all drawn.
const DRAW_EVERY_MS = 250;

export const store = { fleet: null };

const followers = new Set();
const listeners = new Map();

export const stream = new Stream('/api/v1/stream', {
  heard(topic, data) {
    if (topic === 'fleet') take(JSON.parse(data));
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
  fleet.heard = heard;
  fleet.quorum.heard = heard;
  for (const part of [...fleet.nodes, ...fleet.pairs]) part.heard = heard;
  store.fleet = fleet;
}

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
