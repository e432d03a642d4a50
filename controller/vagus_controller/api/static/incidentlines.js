// What there is to say of incidents and of the verdicts in them, from their views; see views.py.

import { since } from './ages.js';
import { h, icon } from './dom.js';
import { closed, duration, known, plural, sentence } from './format.js';
import { when } from './history.js';
import { named } from './store.js';

export const incidentUrl = (id) => `/incidents/${id}`;

const pairOf = (subject) => subject.split('/')[0];

// Where a verdict's subject has a page: one of the fleet's pairs, or one of its paths, or one of its nodes.
export function subjectLink(subject, fleet) {
  const name = pairOf(subject);
  if (fleet && named(fleet.pairs, name)) return h('a', { href: `/pairs/${encodeURIComponent(name)}` }, subject.replace('--', '–').replace('/', ' by '));
  return fleet?.nodes.some((node) => node.name === subject) ? h('a', { href: `/nodes/${encodeURIComponent(subject)}` }, subject) : subject;
}

// How it stands: "open for 3 min", "over after 5 min".
export function standing(incident, heard) {
  if (incident.state === 'open') return ['open for ', since(incident.duration_s, heard)];
  if (incident.state === 'merged') return ['part of ', h('a', { href: incidentUrl(incident.merged_into) }, `incident ${incident.merged_into}`)];
  const after = ` after ${duration(incident.duration_s)}`;
  return incident.state === 'resolved' ? [`resolved by ${incident.resolved_by}${after}`] : [`over${after}`];
}

export const severityOf = (incident) => (incident.state === 'open' ? known(incident.severity) : 'ok');

export function incidentList(incidents, none, heard) {
  if (!incidents.length) return h('p.empty', {}, none);
  return h('ul.incident-lines', { 'data-key': 'list' }, incidents.map((one) => line(one, heard)));
}

// How many of its verdicts are its cause; what an older controller wrote tells it by those that are listed.
export const causesOf = (one) => one.causes_total ?? one.troubles.filter((trouble) => trouble.is_cause).length;

function line(one, heard) {
  const consequences = one.troubles_total - causesOf(one);
  const severity = severityOf(one);
  return h(
    'li',
    { 'data-key': one.id },
    icon(severity, severity, 18),
    h(
      'div',
      {},
      h('p', {}, h('a.title', { href: incidentUrl(one.id) }, closed(sentence(one.title))), ' ', h('span.muted', {}, `#${one.id}, `, known(one.worst), ', ', ...standing(one, heard))),
      h(
        'p.muted',
        {},
        when(one.at),
        '  ',
        one.did ? `vagus ${closed(one.did)} ` : 'vagus did nothing about it. ',
        consequences > 0 && `${plural(consequences, 'consequence')} inside. `,
        one.acknowledged_by && one.state === 'open' && `${one.acknowledged_by} is on it.`,
      ),
    ),
  );
}

export function troubleList(troubles, fleet, heard) {
  return h('ul.incident-lines', {}, troubles.map((one) => trouble(one, fleet, heard)));
}

function trouble(one, fleet, heard) {
  const severity = one.over ? 'ok' : known(one.severity);
  const state = one.state.replaceAll('-', ' ');
  return h(
    'li',
    { 'data-key': `${one.kind} ${one.subject}` },
    icon(severity, severity, 16),
    h(
      'div',
      {},
      h('p', { class: one.over ? 'over' : null }, h('strong', {}, subjectLink(one.subject, fleet), `: ${one.kind} ${state}`), ' ', h('span.muted', {}, one.over ? ['over'] : ['for ', since(one.since_s, heard)])),
      h('p.muted', {}, closed(sentence(one.reason))),
    ),
  );
}
