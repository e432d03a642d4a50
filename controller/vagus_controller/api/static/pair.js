// One pair: both ends' views of all its paths side by side, why it is where it is, and what a person may ask for.

import { since } from './ages.js';
import * as api from './api.js';
import { h, icon, replaceChildren } from './dom.js';
import { ABSENT, closed, duration, known, relay, sentence, share, text } from './format.js';
import { timeline } from './history.js';
import { moveButtons, onMoveClick } from './moves.js';
import { OverTime, ofPair } from './overtime.js';
import { PairCharts } from './paircharts.js';
import { dark, lastDrill, ORIGINS, senders, standing } from './pairs.js';
import { evidence } from './quorum.js';
import { page, subject } from './shell.js';
import { drawSoon, listen, named } from './store.js';

const place = (id) => document.getElementById(id);
const asked = subject();
const reversed = asked.split('--').reverse().join('--');

const time = new OverTime(place('range'), { load: async (words) => ofPair(await api.pairHistory(drawn?.name ?? asked, words)), subject: () => drawn?.name ?? asked });
const charts = new PairCharts(place('charts'), place('ways'), time);

let why = null;
let trouble = '';
let drawn = null;

// At most one question at a time; news meanwhile bring another one.
let asking = false;
let again = false;

async function ask() {
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  again = false;
  try {
    why = await api.why(drawn?.name ?? asked);
    trouble = '';
  } catch (error) {
    trouble = error.message;
  }
  asking = false;
  drawSoon();
  if (again) setTimeout(ask, 1000);
}

for (const topic of ['event', 'ledger']) {
  listen(topic, (entry) => {
    if (entry.subject.split('/')[0] !== drawn?.name) return;
    ask();
    time.again();
  });
}

function draw(fleet) {
  const pair = named(fleet.pairs, asked) ?? named(fleet.pairs, reversed);
  place('missing').hidden = Boolean(pair);
  place('known').hidden = !pair;
  const nodes = pair?.nodes ?? asked.split('--');
  replaceChildren(place('name'), ...joined(nodes));
  if (!pair) {
    replaceChildren(place('actions'));
    replaceChildren(place('missing'), h('p.empty', {}, `There is no pair ${asked}. A pair appears when two agents name each other as peers. `, h('a', { href: '/' }, 'Back to the fleet')));
    return;
  }
  // What the policy looks at changes with the pair.
  if (drawn === null || drawn.status !== pair.status || drawn.assigned !== pair.assigned || drawn.reason !== pair.reason) ask();
  const first = drawn === null;
  drawn = pair;
  if (first) time.refresh();
  replaceChildren(place('actions'), ...moveButtons(pair), h('button', { type: 'button', 'data-command': true, 'data-action': 'drill', 'data-pair': pair.name, 'data-key': 'drill' }, 'Drill'));
  replaceChildren(place('standing'), ...standingBody(pair));
  replaceChildren(place('paths'), ...pair.paths.map((path) => pathCard(pair, path)));
  drawTime(pair);
  drawWhy();
  place('all').href = `/events?${new URLSearchParams({ subject: pair.name })}`;
}

const joined = ([a, b]) => [h('a', { href: `/nodes/${encodeURIComponent(a)}` }, a), h('span.between', { 'aria-label': 'and' }, ' ⇄ '), h('a', { href: `/nodes/${encodeURIComponent(b ?? '')}` }, b ?? '')];

function standingBody(pair) {
  const [shape, severity, words] = standing(pair);
  const [a, b] = pair.nodes;
  const kernel = (node, path) => `${node} sends by ${path || 'none of our routes'}`;
  return [
    h('p.state-line', {}, icon(dark(pair) ? 'critical' : shape, dark(pair) ? 'critical' : severity, 22), h('span', {}, words), h('span.muted.for', {}, 'for ', since(pair.since_s, pair.heard))),
    h('p', {}, closed(sentence(pair.reason))),
    h('p.muted', {}, `Assigned to ${text(pair.assigned)}, ${ORIGINS[pair.origin] ?? pair.origin}. Now ${kernel(a, pair.observed[0])}, ${kernel(b, pair.observed[1])}.`),
    pair.drill ? h(`p.${pair.drill.ok ? 'muted' : 'warn-text'}`, {}, lastDrill(pair.drill)) : h('p.muted', {}, 'Not drilled yet.'),
  ];
}

// --- paths -------------------------------------------------------------------------------------------------------------

const FIGURES = [
  ['State', (link) => h('span.status-line', {}, icon(link.state, STATE_SEVERITY[link.state] ?? 'unknown', 14), sentence(link.state))],
  ['Round trip', (link) => duration(link.rtt_s)],
  ['Jitter', (link) => duration(link.jitter_s)],
  ['Loss, 10 s', (link) => share(link.loss_10s)],
  ['Loss, 60 s', (link) => share(link.loss_60s)],
  ['Last answer', (link, pair) => since(link.proven_s, pair.heard, 'ago')],
  ['Other end says', (link) => text(link.peer_state)],
  ['Carried', (link) => relay(link.relay)],
  ['So since', (link, pair) => since(link.since_s ?? 0, pair.heard)],
];

const STATE_SEVERITY = { __proto__: null, up: 'ok', degraded: 'warning', suspect: 'warning', down: 'critical' };

function pathCard(pair, path) {
  const severity = known(path.verdict.severity);
  const carriers = senders(pair, path.path);
  return h(
    'section.card.path-card',
    { 'data-key': path.path, 'aria-label': path.path, 'data-carries': carriers.length ? 'yes' : 'no' },
    h(
      'div.card-head',
      {},
      h('h2', {}, path.path),
      carriers.length > 0 && h('span.tag', {}, carriers.length === 2 ? 'carries traffic' : `carries traffic from ${carriers[0]}`),
    ),
    h('p.state-line', {}, icon(path.verdict.state, severity, 20), h('span', {}, sentence(path.verdict.state.replaceAll('-', ' '))), h('span.muted.for', {}, 'for ', since(path.verdict.since_s, pair.heard))),
    h('p', {}, closed(sentence(path.verdict.reason))),
    h(`p.note.${path.proven ? 'ok' : 'warning'}`, {}, icon(path.proven ? 'ok' : 'warning', path.proven ? 'ok' : 'warning', 16), h('span', {}, path.proven ? 'Proven from both ends by real packets.' : `Not proven, because ${closed(path.unproven || 'no reason was given')}`)),
    path.metered && h('p.muted', {}, `Metered: probed every ${duration(path.idle_interval_s)} while idle, so a cut is found up to that much later.`),
    h(
      'table.ends',
      { role: 'table', 'aria-label': `${pair.name} over ${path.path}, both ends` },
      h('thead', {}, h('tr', {}, h('td', {}), path.ends.map((end) => h('th', { scope: 'col' }, `seen from ${end.node}`)))),
      h('tbody', {}, FIGURES.map(([title, show]) => h('tr', { 'data-key': title }, h('th', { scope: 'row' }, title), path.ends.map((end) => h('td', {}, end.link ? show(end.link, pair) : title === 'State' ? 'has not told' : ABSENT))))),
    ),
    path.ends.map((end) => [end.link?.reason, end.link?.obstacle].filter(Boolean).map((words) => h('p.muted.below', {}, `${end.node}: ${closed(words)}`))),
    evidence(path.verdict),
  );
}

function drawTime(pair) {
  place('charts-trouble').textContent = time.trouble && `${closed(time.trouble)} Asked again in 15 s.`;
  place('charts-trouble').hidden = time.trouble === '';
  const empty = time.data && !time.data.at.length;
  place('charts-words').textContent = time.loading ? 'Loading…' : empty ? 'Nothing was recorded in this time: the controller was off, or did not know this pair yet.' : '';
  place('charts').classList.toggle('loading', time.loading);
  charts.draw(pair);
}

// --- why ---------------------------------------------------------------------------------------------------------------

const CHECKS = { __proto__: null, pass: ['ok', 'ok', 'passes'], block: ['critical', 'critical', 'blocks'], info: ['info', 'info', ''] };

function drawWhy() {
  place('trouble').textContent = trouble;
  place('trouble').hidden = trouble === '';
  if (!why) return;
  const checks = why.checks.map((check) => {
    const [shape, severity, words] = CHECKS[check.result] ?? CHECKS.info;
    return h('li', {}, icon(shape, severity, 16), h('p', {}, h('strong', {}, `${sentence(check.what)} `), words && h('span.sr', {}, `${words}: `), h('span', {}, closed(check.text))));
  });
  replaceChildren(place('checks'), checks.length ? h('ol.checks', {}, checks) : h('p.empty', {}, 'This pair has one path: there is nothing to decide.'));
  replaceChildren(place('timeline'), timeline(why.events, why.ledger));
}

document.addEventListener('click', onMoveClick);

page({ draw, opened: ask, title: () => asked.replace('--', ' ⇄ ') });
