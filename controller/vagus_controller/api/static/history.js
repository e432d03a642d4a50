// Events and decisions, newest first, and pauses.

import { h, icon } from './dom.js';
import { clock, closed, duration, known, sentence } from './format.js';

// Kept on the page; the store has the rest.
export const MOST_ENTRIES = 100;

// `entries` with `entry` in its place: by id, newest first, none twice.
export function merged(entries, more) {
  const byId = new Map([...entries, ...more].map((entry) => [entry.id, entry]));
  return [...byId.values()].sort((a, b) => b.id - a.id).slice(0, MOST_ENTRIES);
}

export function eventsBody(entries) {
  if (!entries.length) return [h('p.empty', {}, 'Nothing has happened yet.')];
  return [h('ol.history', {}, entries.map(eventLine))];
}

function eventLine(entry) {
  const severity = known(entry.severity);
  return h(
    'li',
    { 'data-key': entry.id },
    when(entry.at),
    icon(severity === 'ok' ? 'up' : severity, severity, 14),
    h(
      'p',
      {},
      h('strong', {}, entry.subject),
      ` ${closed(entry.text)} `,
      h('span.muted', {}, entry.source === entry.subject ? entry.kind : `${entry.kind}, from ${entry.source}`),
    ),
  );
}

export function ledgerBody(entries) {
  if (!entries.length) return [h('p.empty', {}, 'No decision yet, neither to act nor not to.')];
  return [h('ol.history', {}, entries.map(ledgerLine))];
}

function ledgerLine(entry) {
  return h(
    'li',
    { 'data-key': entry.id },
    when(entry.at),
    h('span.chip', {}, entry.action),
    h(
      'div',
      {},
      h('p', {}, h('strong', {}, entry.subject), ` ${closed(sentence(entry.reason))} `, h('span.muted', {}, `by ${entry.who}`)),
      entry.outcome && h('p.muted', {}, closed(sentence(entry.outcome))),
      entry.evidence.length > 0 &&
        h('details.why', {}, h('summary', {}, 'Evidence'), h('ul.evidence', {}, entry.evidence.map((line) => h('li', {}, line)))),
    ),
  );
}

function when(at) {
  return h('time', { datetime: new Date(at * 1000).toISOString(), title: new Date(at * 1000).toISOString() }, clock(at));
}

const SCOPES = { __proto__: null, fleet: () => 'The whole fleet', site: (target) => `Site ${target}`, node: (target) => `Node ${target}` };

export function pausesBody(fleet, elapsed) {
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
            h('span.muted', {}, `By ${pause.who}; ends in ${duration(Math.max(0, pause.expires_s - elapsed))}.`),
          ),
          h('button', { type: 'button', 'data-action': 'resume', 'data-id': pause.id }, 'Resume'),
        ),
      ),
    ),
  ];
}
