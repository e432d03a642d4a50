// Lines of history: events and decisions.

import { h, icon } from './dom.js';
import { clock, closed, known, sentence } from './format.js';

// `entries` with `more` in their places: by id, newest first, none twice, at most `most`.
export function merged(entries, more, most = Infinity) {
  const byId = new Map([...entries, ...more].map((entry) => [entry.id, entry]));
  return [...byId.values()].sort((a, b) => b.id - a.id).slice(0, most);
}

// A decision about the fleet; the ledger also says who came and went, and what became of users and tokens.
export const aboutFleet = (entry) => !['sign-in', 'sign-out', 'accounts'].includes(entry.action);

export function eventsList(entries) {
  if (!entries.length) return h('p.empty', {}, 'Nothing has happened yet.');
  return h('ol.history', { 'data-key': 'list' }, entries.map(eventLine));
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

export function ledgerList(entries) {
  if (!entries.length) return h('p.empty', {}, 'No decision yet, neither to act nor not to.');
  return h('ol.history.decisions', { 'data-key': 'list' }, entries.map(ledgerLine));
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

export function when(at) {
  return h('time', { datetime: new Date(at * 1000).toISOString(), title: new Date(at * 1000).toISOString() }, clock(at));
}

// Both, as one line of time, newest first.
export function timeline(events, ledger) {
  const lines = [
    ...events.map((entry) => [entry.at, 'e', entry.id, eventLine(entry)]),
    ...ledger.map((entry) => [entry.at, 'l', entry.id, ledgerLine(entry)]),
  ].sort(([a], [b]) => b - a);
  if (!lines.length) return h('p.empty', {}, 'Nothing has happened, and nothing was decided.');
  return h(
    'ol.history.timeline',
    { 'data-key': 'list' },
    lines.map(([, kind, id, line]) => {
      line.dataset.key = kind + id;
      return line;
    }),
  );
}
