// What there is to say of a pair of nodes, from its view; see views.py.

import { ago, closed, duration, known, rank, worst } from './format.js';

// A pair's first path: where it is at home.
export const home = (pair) => pair.paths[0]?.path ?? '';

export const moved = (pair) => pair.assigned !== home(pair) || pair.observed.some((path) => path !== home(pair));

const moods = new WeakMap();

// The worst severity of anything about the pair.
export function mood(pair) {
  let found = moods.get(pair);
  if (found === undefined) {
    const all = pair.paths.map((path) => known(path.verdict.severity));
    if (pair.status === 'waiting' || pair.status === 'recommended') all.push('warning');
    if (moved(pair) || pair.status !== 'settled') all.push('info');
    found = worst(all);
    moods.set(pair, found);
  }
  return found;
}

export const needsAttention = (pair) => rank(mood(pair)) > 0;

// Which of the pair's nodes send their traffic by `path` now.
export const senders = (pair, path) => pair.nodes.filter((_, end) => pair.observed[end] === path);

// The worst of both ends' figures: null when neither has one.
export function figures(path) {
  const links = path.ends.map((end) => end.link).filter(Boolean);
  const most = (key) => links.reduce((top, link) => (link[key] == null ? top : Math.max(top ?? 0, link[key])), null);
  // An idle or dead path says nothing of how it would be carried.
  const live = links.filter((link) => link.relay && link.relay !== 'idle' && link.state !== 'down');
  return { rtt: most('rtt_s'), loss: most('loss_10s'), relays: [...new Set(live.map((link) => link.relay))] };
}

// A path that carries nothing for this pair: down, or one way only.
export const dead = (path) => ['down', 'one-way', 'direct-but-dead'].includes(path.verdict.state);

// Whether the pair's traffic is on a path that is dead.
export const dark = (pair) => pair.paths.some((path) => dead(path) && senders(pair, path.path).length > 0);

export function matches(filter, ...names) {
  const wanted = filter.trim().toLowerCase();
  return wanted === '' || names.some((name) => name.toLowerCase().includes(wanted));
}

export const pairUrl = (pair) => `/pairs/${encodeURIComponent(pair.name)}`;

// Shape, severity and words of how the pair stands.
export function standing(pair) {
  if (pair.status === 'settled') return pair.assigned === home(pair) ? ['up', 'ok', 'At home'] : ['relayed', 'info', `On ${pair.assigned}`];
  return STANDINGS[pair.status] ?? ['unknown', 'unknown', pair.status];
}

const STANDINGS = {
  __proto__: null,
  moving: ['info', 'info', 'Moving'],
  waiting: ['warning', 'warning', 'Waiting'],
  recommended: ['warning', 'warning', 'Needs approval'],
  held: ['info', 'info', 'Held by hand'],
};

export const ORIGINS = {
  __proto__: null,
  default: 'as configured',
  auto: 'moved automatically',
  operator: 'moved by hand',
  reflex: 'moved by the agents themselves',
};

// "Last drill 3 d ago: ok, gap 40 ms."
export function lastDrill({ at, ok, words, gap_s: gap }) {
  const when = at ? ` ${ago(Math.max(Date.now() / 1000 - at, 0))}` : '';
  const seen = gap === null ? 'gap not measured' : gap ? `gap ${duration(gap)}` : 'no gap';
  return closed(`Last drill${when}: ${ok ? `ok, ${seen}` : `aborted, ${words}`}`);
}
