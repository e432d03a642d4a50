// Pauses: what vagus does not move by itself for now.

import * as api from './api.js';
import { ask } from './dialog.js';
import { h, icon } from './dom.js';
import { closed, duration, sentence } from './format.js';
import { elapsed, named, store } from './store.js';
import { toast } from './toast.js';

const SCOPES = { __proto__: null, fleet: () => 'The whole fleet', site: (target) => `Site ${target}`, node: (target) => `Node ${target}` };
// As on the failover console.
const LASTS = [['900', '15 minutes'], ['3600', '1 hour'], ['14400', '4 hours'], ['86400', '1 day']];

export function pausesBody(fleet) {
  return [pauseList(fleet, fleet.pauses) ?? h('p.muted', {}, 'Nothing is paused: vagus acts by its rules.')];
}

// Those of the fleet's pauses that cover the node.
export function pausesOn(fleet, node) {
  const names = { __proto__: null, fleet: '', site: node.site, node: node.name };
  return fleet.pauses.filter(({ scope, target }) => names[scope] === target);
}

export function pauseList(fleet, pauses) {
  if (!pauses.length) return null;
  return h(
    'ul.pauses',
    {},
    pauses.map((pause) =>
      h(
        'li',
        { 'data-key': pause.id },
        icon('warning', 'warning', 16),
        h(
          'p',
          {},
          h('strong', {}, `${(SCOPES[pause.scope] ?? ((target) => target))(pause.target)} is paused. `),
          `${closed(sentence(pause.reason))} `,
          h('span.muted', {}, `By ${pause.who}; ends in ${duration(Math.max(0, pause.expires_s - elapsed(fleet)))}.`),
        ),
        h('button', { type: 'button', 'data-action': 'resume', 'data-id': pause.id, 'data-command': true }, 'Resume'),
      ),
    ),
  );
}

export const pauseButton = (node) => h('button', { type: 'button', 'data-action': 'pause', 'data-node': node.name, 'data-command': true, 'data-key': 'pause' }, 'Pause');

// What a pause of `where` means.
export const pauseMeans = (where) =>
  `vagus moves nothing of ${where} by itself, not even off a dead path. Plans and drills there stop. Agents that lose every controller still save their own links.`;

// Clicks on the buttons above.
export function onPauseClick(event) {
  const { action, id, node } = event.target.closest('button[data-action]')?.dataset ?? {};
  if (action === 'resume') askResume(Number(id));
  else if (action === 'pause' && named(store.fleet.nodes, node)) askPause(node);
}

function askResume(id) {
  const pause = store.fleet.pauses.find((one) => one.id === id);
  ask({
    title: 'Resume',
    consequence: [`vagus acts again on ${pause?.target || 'the whole fleet'} at once: traffic may move within seconds.`],
    confirm: 'Resume',
    async act() {
      await api.resume(id);
      toast('The pause is over.');
    },
  });
}

function askPause(node) {
  ask({
    title: `Pause node ${node}`,
    consequence: [`For so long, ${pauseMeans(`node ${node}`)}`],
    warn: true,
    choice: { title: 'For', options: LASTS, first: 1 },
    reason: 'required',
    confirm: 'Pause',
    async act({ reason, choice }) {
      await api.pause('node', node, reason, Number(choice));
      toast(`Node ${node} is paused for ${LASTS.find(([value]) => value === choice)[1]}.`);
    },
  });
}
