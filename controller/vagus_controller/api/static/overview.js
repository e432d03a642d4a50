// The top of the fleet page, for three in the morning: how it is, whether it is us or the network, whether quorum is safe,
// what vagus did, and what to do.

import { advice } from './advice.js';
import { since } from './ages.js';
import { h, icon, redraw } from './dom.js';
import { closed, known, plural, rank, sentence } from './format.js';
import { when } from './history.js';
import { dark, dead, mood, moved } from './pairs.js';
import { margin } from './quorum.js';
import { MOODS } from './shell.js';

export function drawHeadline(target, fleet) {
  const found = advice(fleet).sort((a, b) => rank(b.severity) - rank(a.severity));
  const severity = known(fleet.severity);
  const [lasts] = fleet.incidents;
  // What is not well is never answered by "nothing".
  if (!found.length && lasts && rank(severity) > rank('info')) found.push({ severity, words: `See what incident ${lasts.id} comes of: ${closed(lasts.title)}`, href: `/incidents/${lasts.id}` });
  redraw(target, [severity, fleet.summary, JSON.stringify(found)], () => [
    icon(severity, severity, 40),
    h('div.headline-words', {}, h(`p.mood.${severity}`, {}, MOODS[severity]), h('h1', {}, closed(fleet.summary)), todo(found)),
  ]);
}

function todo([first, ...others]) {
  return [
    h('p.advice', {}, h('strong', {}, 'What to do: '), first ? linked(first) : 'nothing.'),
    others.length > 0 &&
      h('details.advice', { 'data-key': 'others' }, h('summary', {}, plural(others.length, 'more thing'), ' to do'), h('ul', {}, others.slice(0, 8).map((one) => h('li', {}, linked(one))))),
  ];
}

const linked = ({ words, href }) => (href ? h('a', { href }, words) : words);

const MOST_INCIDENTS = 5;

// Open incidents, the worst first.
export function incidentsBody(fleet) {
  const { incidents } = fleet;
  const left = incidents.length - MOST_INCIDENTS;
  return [
    h('ul.incidents', {}, incidents.slice(0, MOST_INCIDENTS).map((one) => incidentLine(one, fleet))),
    left > 0 && h('p', { 'data-key': 'more' }, h('a', { href: '/incidents' }, `${left} more`)),
  ];
}

function incidentLine(one, fleet) {
  const severity = known(one.severity);
  const count = Math.max(one.troubles - one.causes, 0);
  const consequences = count > 0 && `${plural(count, 'consequence')} inside.`;
  return h(
    'li',
    { 'data-key': one.id },
    icon(severity, severity, 18),
    h(
      'div',
      {},
      h('p', {}, h('a', { href: `/incidents/${one.id}` }, closed(sentence(one.title))), ' ', h('span.muted', {}, since(one.age_s, fleet.heard, 'ago'))),
      h('p.muted', {}, one.did ? `${closed(sentence(one.did))} ` : 'vagus did nothing about it. ', consequences, one.acknowledged_by && ` ${one.acknowledged_by} is on it.`),
    ),
  );
}

// Four answers, each with a sign, a word and a reason.
export function drawVitals(target, fleet, ledger) {
  const answers = [observer(fleet), ...[network(fleet), quorum(fleet)].map((answer) => (fleet.observer.state === 'blind' ? remembered(answer) : answer))];
  const moving = fleet.pairs.filter((pair) => pair.status === 'moving').length;
  redraw(target, [answers.join('\n'), moving, fleet.pauses.length, ledger, fleet.leads, fleet.standing], () => [
    ...answers.map((answer) => vital(...answer)),
    vital(...deeds(fleet, ledger, moving)),
  ]);
}

// Who hears nobody knows only what was.
const remembered = ([key, title, , word]) => [key, title, 'unknown', 'Not known now', `Last known: ${word}.`];

function vital(key, title, severity, strong, ...words) {
  return h('li', { 'data-key': key }, icon(severity, severity, 20), h('div', {}, h('p.vital-title', {}, title), h('p.vital-word', {}, strong), h('p.muted', {}, words)));
}

function observer(fleet) {
  const { observer: seen } = fleet;
  const heard = fleet.nodes.filter((node) => node.liveness.state === 'fresh').length;
  const word = seen.state === 'blind' ? 'It is us: blind' : seen.state === 'settling' ? 'Just connected' : `Hears ${heard} of ${plural(fleet.nodes.length, 'node')}`;
  return ['observer', 'This controller', known(seen.severity), word, closed(sentence(seen.reason))];
}

function network({ pairs }) {
  if (!pairs.length) return ['network', 'Network', 'unknown', 'No pair yet', 'A pair appears when two agents name each other.'];
  let cut = 0;
  let lost = 0;
  let away = 0;
  let ill = 0;
  for (const pair of pairs) {
    if (mood(pair) === 'ok') continue;
    if (moved(pair)) away += 1;
    if (dark(pair)) lost += 1;
    if (pair.paths.some(dead)) cut += 1;
    else if (rank(mood(pair)) > 1) ill += 1;
  }
  const parts = [];
  if (away) parts.push(`${away} off ${away === 1 ? 'its' : 'their'} first path`);
  if (cut && !lost) parts.push('traffic goes by another path');
  if (ill) parts.push(`${ill} ${ill === 1 ? 'needs' : 'need'} attention`);
  const words = parts.length ? closed(sentence(parts.join(', '))) : 'All on their first path, standbys proven.';
  if (lost) return ['network', 'Network', 'critical', `${plural(lost, 'pair')} cut off`, words];
  if (cut) return ['network', 'Network', 'warning', `Dead path in ${cut} of ${plural(pairs.length, 'pair')}`, words];
  return ['network', 'Network', ill ? 'warning' : away ? 'info' : 'ok', `${plural(pairs.length, 'pair')} connected`, words];
}

function quorum({ quorum: view }) {
  if (!view.members.length && !view.voters) return ['quorum', 'Quorum', 'unknown', 'No etcd', closed(sentence(view.verdict.reason))];
  return ['quorum', 'Quorum', known(view.verdict.severity), sentence(view.verdict.state.replaceAll('-', ' ')), margin(view)];
}

const DID = { __proto__: null, failover: 'Failed over', failback: 'Failed back', switchover: 'Switched over', hold: 'Left alone', recommend: 'Recommends', adopt: 'Took over', revert: 'Took back', refuse: 'Refused', plan: 'Plan', drill: 'Drill', pause: 'Paused', resume: 'Resumed' };

function deeds(fleet, ledger, moving) {
  const paused = fleet.pauses.length ? ` ${plural(fleet.pauses.length, 'pause')} in force.` : '';
  const severity = fleet.pauses.length ? 'warning' : 'ok';
  if (moving) return ['deeds', 'vagus', 'info', `Moves ${plural(moving, 'pair')} now`, h('a', { href: '/failover' }, 'See it happen'), '.', paused];
  if (!fleet.leads) return ['deeds', 'vagus', 'info', 'Stands by', `${closed(sentence(fleet.standing))}${paused}`];
  const [last] = ledger;
  if (!last) return ['deeds', 'vagus', severity, 'Did nothing yet', `No decision so far.${paused}`];
  const word = `${DID[last.action] ?? sentence(last.action)}: ${last.subject.replace('--', '–')}`;
  return ['deeds', 'vagus', severity, word, when(last.at), ` ${closed(sentence(last.outcome || last.reason))}${paused}`];
}
