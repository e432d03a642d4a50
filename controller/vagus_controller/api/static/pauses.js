// Pauses: what vagus does not move by itself for now.

import * as api from './api.js';
import { ask } from './dialog.js';
import { h, icon } from './dom.js';
import { closed, duration, sentence } from './format.js';
import { elapsed, store } from './store.js';
import { toast } from './toast.js';

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
          h('button', { type: 'button', 'data-action': 'resume', 'data-id': pause.id, 'data-command': true }, 'Resume'),
        ),
      ),
    ),
  ];
}

// Clicks on the buttons above.
export function onResumeClick(event) {
  const { action, id } = event.target.closest('button[data-action]')?.dataset ?? {};
  if (action !== 'resume') return;
  const pause = store.fleet.pauses.find((one) => one.id === Number(id));
  ask({
    title: 'Resume',
    consequence: [`vagus acts again on ${pause?.target || 'the whole fleet'} at once: traffic may move within seconds.`],
    confirm: 'Resume',
    async act() {
      await api.resume(Number(id));
      toast('The pause is over.');
    },
  });
}
