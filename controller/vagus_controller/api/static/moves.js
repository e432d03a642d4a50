// Moves that a person asks for, with what comes of them.

import * as api from './api.js';
import { ask } from './dialog.js';
import { h } from './dom.js';
import { closed, sentence } from './format.js';
import { home } from './pairs.js';
import { named, store } from './store.js';
import { toast } from './toast.js';

// What a person may do now: away to each other path, or home. The buttons are for `onMoveClick`.
export function moveButtons(pair) {
  const buttons = pair.paths
    .filter((path) => path.path !== pair.assigned && path.path !== home(pair))
    .map((path) => button(pair, path.path, `Switch over to ${path.path}`));
  if (pair.assigned !== home(pair)) buttons.push(button(pair, home(pair), `Fail back to ${home(pair)}`));
  if (pair.status === 'recommended') {
    buttons.unshift(h('button.primary', { type: 'button', 'data-command': true, 'data-action': 'approve', 'data-pair': pair.name, 'data-key': 'approve' }, 'Approve the move'));
  }
  return buttons;
}

// Asks, and then carries out what vagus recommends for the pair `name`.
export function askApproval(name) {
  const pair = store.fleet && named(store.fleet.pairs, name);
  if (!pair) return;
  ask({
    title: `Approve the move of ${pair.nodes.join(' and ')}`,
    consequence: [closed(sentence(pair.reason)), `Traffic of this pair leaves ${pair.assigned} within about a second; both ends verify the new path with real packets, and go back if it fails.`],
    reason: true,
    confirm: 'Approve',
    async act({ reason }) {
      await api.approve(name, reason);
      toast(`The move of ${pair.nodes.join(' and ')} has begun.`);
    },
  });
}

// Asks, and then rehearses failover and failback of a pair.
export function askDrill(name) {
  const pair = store.fleet && named(store.fleet.pairs, name);
  if (!pair) return;
  ask({
    title: `Drill ${pair.nodes.join(' and ')}`,
    consequence: [
      'Traffic of this pair goes out to its standby for about 5 s, is watched by both ends, and comes back. The gap that it sees is measured.',
      'The first bad sign ends the drill, and nothing of it stays. It begins only while all is well.',
    ],
    reason: true,
    confirm: 'Begin the drill',
    async act({ reason }) {
      await api.drill('pair', name, reason);
      toast(`The drill of ${pair.nodes.join(' and ')} has begun.`);
    },
  });
}

// Clicks on the buttons above, wherever they stand.
export function onMoveClick(event) {
  const { action, pair, path } = event.target.closest('button[data-action]')?.dataset ?? {};
  if (action === 'move') askMove(pair, path);
  else if (action === 'approve') askApproval(pair);
  else if (action === 'drill') askDrill(pair);
}

function button(pair, path, words) {
  return h('button', { type: 'button', 'data-command': true, 'data-action': 'move', 'data-pair': pair.name, 'data-path': path, 'data-key': path }, words);
}

// Asks, and then moves the pair `name` to the path `to`; home, when that is its first.
export function askMove(name, to) {
  const pair = store.fleet && named(store.fleet.pairs, name);
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
    async act({ reason, force }) {
      await (back ? api.failback(name, reason) : api.switchover(name, to, reason, force));
      toast(`${back ? 'Failback' : 'Switchover'} of ${a} and ${b} to ${to} has begun.`);
    },
  });
}
