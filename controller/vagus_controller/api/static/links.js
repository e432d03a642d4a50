// Pairs of nodes over their paths. Small fleets show every pair; large ones what needs attention, by site.

import { h, icon } from './dom.js';
import { ABSENT, ago, closed, duration, known, plural, rank, relay, sentence, share, text, worst } from './format.js';
import { evidence } from './quorum.js';

// Above this many pairs only those that need attention are shown, below a matrix of sites.
export const MANY_PAIRS = 40;
const MOST_ROWS = 30;
const MOST_SITES = 16;

export const home = (pair) => pair.paths[0]?.path ?? '';

export const moved = (pair) => pair.assigned !== home(pair) || pair.observed.some((path) => path !== home(pair));

export function mood(pair) {
  const states = pair.paths.map((path) => known(path.verdict.severity));
  if (pair.status === 'waiting' || pair.status === 'recommended') states.push('warning');
  if (moved(pair) || pair.status !== 'settled') states.push('info');
  return worst(states);
}

export const needsAttention = (pair) => rank(mood(pair)) > 0;

// Which of the pair's nodes send their traffic by `path` now.
export const senders = (pair, path) => pair.nodes.filter((_, end) => pair.observed[end] === path);

// The worst of both ends' figures: null when neither has one.
export function figures(path) {
  const links = path.ends.map((end) => end.link).filter(Boolean);
  const most = (key) => links.reduce((top, link) => (link[key] == null ? top : Math.max(top ?? 0, link[key])), null);
  // An idle or dead path says nothing of how it would be carried.
  const live = links.filter((link) => link.relay && link.relay !== 'idle' && link.state !== 'down');
  const relays = [...new Set(live.map((link) => link.relay))];
  return { rtt: most('rtt_s'), loss: most('loss_10s'), relays };
}

const MOOD_WORDS = { ok: 'well', info: 'moved', warning: 'needs attention', critical: 'critical', unknown: 'not known' };

const STATUS_SHAPES = {
  __proto__: null,
  settled: ['up', 'ok'],
  moving: ['info', 'info'],
  waiting: ['warning', 'warning'],
  recommended: ['warning', 'warning'],
  held: ['info', 'info'],
};

const ORIGINS = {
  __proto__: null,
  default: 'as configured',
  auto: 'moved automatically',
  operator: 'moved by hand',
  reflex: 'moved by the agents themselves',
};

export function matches(filter, ...names) {
  const wanted = filter.trim().toLowerCase();
  return wanted === '' || names.some((name) => name.toLowerCase().includes(wanted));
}

const MOVERS = { __proto__: null, auto: 'automatic', operator: 'by hand', reflex: 'by reflex' };

// `ui`: {open: Set of pair names, filter: text, sites: null | [site, site], all: bool}
export function linksBody(fleet, elapsed, ui) {
  if (!fleet.pairs.length) {
    return [h('p.empty', {}, 'No pair of nodes yet: a pair appears when two agents name each other as peers.')];
  }
  const sites = new Map(fleet.nodes.map((node) => [node.name, node.site || 'no site']));
  const siteOf = (name) => sites.get(name) ?? 'no site';
  const many = fleet.pairs.length > MANY_PAIRS;
  const wanted = fleet.pairs.filter(
    (pair) =>
      (!many || ui.all || ui.filter || ui.sites || needsAttention(pair)) &&
      (!ui.sites || sameSites(ui.sites, pair.nodes.map(siteOf))) &&
      matches(ui.filter, ...pair.nodes, ...pair.nodes.map(siteOf)),
  );
  const body = [h('p.muted.count', { 'data-key': 'count' }, counted(fleet.pairs, wanted.length))];
  if (!many) return [...body, list(wanted, elapsed, ui)];
  body.push(matrix(fleet.pairs, siteOf, ui));
  wanted.sort((a, b) => rank(mood(b)) - rank(mood(a)) || (a.name < b.name ? -1 : 1));
  const shown = wanted.slice(0, MOST_ROWS);
  for (const [name, pairs] of bySites(shown, siteOf)) {
    body.push(h('section.group', { 'data-key': `sites ${name}` }, h('h3', {}, name), list(pairs, elapsed, ui)));
  }
  if (wanted.length > shown.length) {
    const rest = `${plural(wanted.length - shown.length, 'more pair')} not shown: choose a cell above, or filter by node or site.`;
    body.push(h('p.empty', { 'data-key': 'rest' }, rest));
  }
  if (!wanted.length) body.push(h('p.empty', { 'data-key': 'none' }, 'No pair to show.'));
  return body;
}

function counted(pairs, shown) {
  const troubled = pairs.filter((pair) => rank(mood(pair)) > 1).length;
  const away = pairs.filter(moved).length;
  const parts = [plural(pairs.length, 'pair')];
  parts.push(troubled ? `${troubled} ${troubled === 1 ? 'needs' : 'need'} attention` : 'none needs attention');
  parts.push(away ? `${away} moved off the first path` : 'all on their first path');
  if (shown < pairs.length) parts.push(`${shown} match`);
  return parts.join(' · ');
}

const sameSites = (wanted, sites) => [...sites].sort().join('\n') === [...wanted].sort().join('\n');

function bySites(pairs, siteOf) {
  const groups = new Map();
  for (const pair of pairs) {
    const [a, b] = pair.nodes.map(siteOf).sort();
    const name = a === b ? `within ${a}` : `${a} ⇄ ${b}`;
    groups.set(name, [...(groups.get(name) ?? []), pair]);
  }
  return groups;
}

function matrix(pairs, siteOf, ui) {
  const cells = new Map();
  const sites = new Set();
  for (const pair of pairs) {
    const key = pair.nodes.map(siteOf).sort();
    key.forEach((site) => sites.add(site));
    const cell = cells.get(key.join('\n')) ?? { worst: 'ok', troubled: 0, total: 0 };
    const severity = mood(pair);
    cell.total += 1;
    if (rank(severity) > 0) cell.troubled += 1;
    cell.worst = worst([cell.worst, severity]);
    cells.set(key.join('\n'), cell);
  }
  if (sites.size < 2 || sites.size > MOST_SITES) return null;
  const names = [...sites].sort();
  const row = (a, index) =>
    h(
      'tr',
      { 'data-key': a },
      h('th', { scope: 'row' }, a),
      names.map((b, column) => {
        const cell = column > index ? null : cells.get([a, b].sort().join('\n'));
        return h('td', { 'data-key': b }, cell && siteButton(a, b, cell, ui));
      }),
    );
  return h(
    'div.scroll',
    { 'data-key': 'matrix', tabindex: '0', role: 'region', 'aria-label': 'Sites by sites' },
    h(
      'table.matrix',
      {},
      h('caption', {}, 'Pairs between sites: the worst state, and how many are impaired or moved. Choose one to see its pairs.'),
      h('thead', {}, h('tr', {}, h('td', {}), names.map((name) => h('th', { scope: 'col', 'data-key': name }, name)))),
      h('tbody', {}, names.map(row)),
    ),
  );
}

function siteButton(a, b, cell, ui) {
  const label = `${a} and ${b}: ${MOOD_WORDS[cell.worst]}, ${cell.troubled} of ${plural(cell.total, 'pair')} impaired or moved`;
  return h(
    `button.cell.${cell.worst}`,
    {
      type: 'button',
      'data-action': 'sites',
      'data-a': a,
      'data-b': b,
      'aria-pressed': ui.sites && sameSites(ui.sites, [a, b]) ? 'true' : 'false',
      'aria-label': label,
      title: label,
    },
    icon(cell.worst === 'ok' ? 'up' : cell.worst, cell.worst, 14),
    h('span', {}, cell.troubled ? cell.troubled : ''),
  );
}

function list(pairs, elapsed, ui) {
  return h('ul.pairs', { 'data-key': 'pairs' }, pairs.map((pair) => pairItem(pair, elapsed, ui)));
}

function pairItem(pair, elapsed, ui) {
  const open = ui.open.has(pair.name);
  const [a, b] = pair.nodes;
  return h(
    'li',
    { 'data-key': pair.name },
    h(
      `details.pair.${mood(pair)}`,
      { 'data-pair': pair.name, open },
      h(
        'summary',
        {},
        h('span.pair-name', {}, h('span', {}, a), h('span.between', { 'aria-label': 'and' }, ' ⇄ '), h('span', {}, b)),
        pair.paths.map((path) => pathCell(pair, path)),
        status(pair, elapsed),
        (pair.status === 'waiting' || pair.status === 'recommended') && h('span.pair-reason', {}, closed(sentence(pair.reason))),
      ),
      open && pairBody(pair, elapsed),
    ),
  );
}

function status(pair, elapsed) {
  const away = pair.status === 'settled' && pair.assigned !== home(pair);
  const [shape, severity] = away ? ['relayed', 'info'] : STATUS_SHAPES[pair.status] ?? ['unknown', 'unknown'];
  const since = `for ${duration(pair.since_s + elapsed)}`;
  return h(
    'span.pair-status',
    {},
    h('span.status-line', {}, icon(shape, severity, 14), away ? `On ${pair.assigned}` : sentence(pair.status)),
    h('span.muted', {}, pair.origin === 'default' ? since : `${MOVERS[pair.origin] ?? pair.origin}, ${since}`),
  );
}

function pathCell(pair, path) {
  const { rtt, loss, relays } = figures(path);
  const { verdict } = path;
  const severity = known(verdict.severity);
  const carriers = senders(pair, path.path);
  const carries = carriers.length > 0;
  const facts = [sentence(verdict.state), duration(rtt), `${share(loss)} loss`, ...relays.map((value) => relay(value))];
  return h(
    `span.path.${severity}`,
    { 'data-key': path.path, 'data-carries': carries ? 'yes' : 'no' },
    h(
      'span.path-top',
      {},
      icon(verdict.state, severity, 14),
      h('span.path-name', {}, path.path),
      carries && h('span.tag.traffic', {}, carriers.length === 2 ? 'traffic' : `traffic from ${carriers[0]}`),
      !carries && h(`span.standby${path.proven ? '.proven' : ''}`, {}, path.proven ? 'standby proven' : 'not proven'),
    ),
    h('span.path-facts', {}, facts.filter((fact) => fact !== ABSENT).join(' · ')),
  );
}

function pairBody(pair, elapsed) {
  const [a, b] = pair.nodes;
  const kernel = (node, path) => `${node} sends by ${path || 'none of our routes'}`;
  return h(
    'div.pair-body',
    { 'data-key': 'body' },
    h('p', {}, h('strong', {}, `${sentence(pair.status)}. `), closed(sentence(pair.reason))),
    h(
      'p.muted',
      {},
      `Assigned to ${text(pair.assigned)} (${ORIGINS[pair.origin] ?? pair.origin}) for ${duration(pair.since_s + elapsed)}. `,
      `Now ${kernel(a, pair.observed[0])}, ${kernel(b, pair.observed[1])}.`,
    ),
    pair.drill && h(`p.${pair.drill.ok ? 'muted' : 'warn-text'}`, {}, lastDrill(pair.drill)),
    pair.paths.map((path) => pathBody(pair, path, elapsed)),
    h('div.actions', { 'data-key': 'actions' }, actions(pair)),
  );
}

// "Last drill 3 d ago: ok, gap 40 ms."
function lastDrill({ at, ok, words, gap_s: gap }) {
  const when = at ? ` ${ago(Math.max(Date.now() / 1000 - at, 0))}` : '';
  const seen = gap === null ? 'gap not measured' : gap ? `gap ${duration(gap)}` : 'no gap';
  return closed(`Last drill${when}: ${ok ? `ok, ${seen}` : `aborted, ${words}`}`);
}

// What a person may do now: away to each other path, or home.
export function actions(pair) {
  const buttons = pair.paths
    .filter((path) => path.path !== pair.assigned && path.path !== home(pair))
    .map((path) => button('switchover', pair, path.path, `Switch over to ${path.path}`));
  if (pair.assigned !== home(pair)) buttons.push(button('failback', pair, home(pair), `Fail back to ${home(pair)}`));
  return buttons;
}

function button(action, pair, path, words) {
  return h('button', { type: 'button', 'data-action': action, 'data-pair': pair.name, 'data-path': path, 'data-key': action + path }, words);
}

const END_COLUMNS = ['Seen from', 'State', 'RTT', 'Jitter', 'Loss 10 s', 'Loss 60 s', 'Last reply', 'Other end says', 'Carried', 'Since'];

function pathBody(pair, path, elapsed) {
  const severity = known(path.verdict.severity);
  const proof = path.proven ? 'Proven from both ends by real packets.' : `Not proven, because ${closed(path.unproven || 'no reason was given')}`;
  return h(
    'section.path-body',
    { 'data-key': `path ${path.path}` },
    h('h4', {}, icon(path.verdict.state, severity, 14), `${path.path}: ${path.verdict.state}`),
    h('p', {}, closed(sentence(path.verdict.reason)), ' ', h(`span.${path.proven ? 'muted' : 'warn-text'}`, {}, proof)),
    path.metered && h('p.muted', {}, `Metered: probed every ${duration(path.idle_interval_s)} while idle, so a cut is found up to that much later.`),
    evidence(path.verdict),
    h(
      'table.cards.ends',
      { role: 'table', 'aria-label': `${pair.name} over ${path.path}, both ends` },
      h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, END_COLUMNS.map((name) => h('th', { scope: 'col', role: 'columnheader' }, name)))),
      h('tbody', { role: 'rowgroup' }, path.ends.map((end) => endRow(end, elapsed))),
    ),
  );
}

function endRow(end, elapsed) {
  const { link } = end;
  const cells = link
    ? [
        link.state,
        duration(link.rtt_s),
        duration(link.jitter_s),
        share(link.loss_10s),
        share(link.loss_60s),
        ago(link.proven_s == null ? null : link.proven_s + elapsed),
        text(link.peer_state),
        relay(link.relay),
        duration((link.since_s ?? 0) + elapsed),
      ]
    : ['has not told', ...Array(END_COLUMNS.length - 2).fill(ABSENT)];
  return h(
    'tr',
    { role: 'row', 'data-key': end.node },
    h('th', { scope: 'row', role: 'rowheader' }, end.node, link?.reason && h('span.muted.reason', {}, link.reason)),
    cells.map((value, index) => h('td', { role: 'cell', 'data-label': END_COLUMNS[index + 1] }, value)),
  );
}
