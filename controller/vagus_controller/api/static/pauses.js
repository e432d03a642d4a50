// Pauses: what vagus does not move by itself for now.

import { h, icon } from './dom.js';
import { closed, duration, sentence } from './format.js';
import { elapsed } from './store.js';

const SCOPES = { __proto__: null, fleet: () => 'The whole fleet', site: (target) => `Site ${target}`, node: (target) => `Node ${target}` };

export function pausesBody(fleet) {
  if (!fleet.pauses.length) return [h('p.muted', {}, 'Nothing is paused: vagus acts by its rules.')];
  return [
    h(
      'ul.pauses',
      {},
      fleet.pauses.map((pause) =>
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
          h('button', { type: 'button', 'data-action': 'resume', 'data-id': pause.id }, 'Resume'),
        ),
      ),
    ),
  ];
}
