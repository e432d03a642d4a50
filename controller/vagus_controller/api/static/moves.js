// Moves that a person asks for, with what comes of them.

import * as api from './api.js';
import { ask } from './dialog.js';
import { home } from './links.js';
import { store } from './store.js';

// Asks, and then moves the pair `name` to the path `to`; home, when that is its first.
export function askMove(name, to) {
  const pair = store.fleet?.pairs.find((one) => one.name === name);
  if (!pair) return;
  const [a, b] = pair.nodes;
  const back = to === home(pair);
  const target = pair.paths.find((path) => path.path === to);
  const consequence = [
    `Traffic between ${a} and ${b} leaves ${pair.assigned} and takes ${to}, in both directions, within about a second. Open connections stay open.`,
    back
      ? `From then on vagus moves this pair by its own rules again.`
      : `vagus holds the pair on ${to} until a person fails it back to ${home(pair)}.`,
  ];
  if (target && !target.proven) consequence.push(`${to} is not proven, because ${target.unproven || 'no reason was given'}. Traffic may be lost.`);
  ask({
    title: back ? `Fail back ${a} and ${b} to ${to}` : `Switch over ${a} and ${b} to ${to}`,
    consequence,
    warn: target && !target.proven,
    reason: true,
    force: !back && target && !target.proven ? `Switch over although ${to} is not proven` : '',
    confirm: back ? 'Fail back' : 'Switch over',
    act: ({ reason, force }) => (back ? api.failback(name, reason) : api.switchover(name, to, reason, force)),
  });
}
