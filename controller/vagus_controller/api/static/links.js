// The links card: pairs of nodes over their paths. A small fleet shows every pair; a large one a matrix of its sites, one
// level down the matrix of two sites' nodes (at once where all are at one site), and the pairs that need attention.

import { since } from './ages.js';
import { h, icon, redraw } from './dom.js';
import { ABSENT, closed, duration, known, plural, rank, relay, sentence, share, worst } from './format.js';
import { figures, matches, mood, moved, needsAttention, pairUrl, senders, standing } from './pairs.js';

// Above this many pairs only those that need attention are listed, below a matrix.
export const MANY_PAIRS = 40;
const MOST_ROWS = 30;
const MOST_SITES = 100;
const MOST_CELLS = 10_000;

const MOOD_WORDS = { __proto__: null, ok: 'well', info: 'moved', warning: 'needs attention', critical: 'critical', unknown: 'not known' };

// Draws into `place(id)` what is another: count, sites, nodes (of two sites) and pairs.
// `ui`: {filter: text, sites: null | [site, site], all: bool}
export function drawLinks(place, fleet, ui) {
  const many = fleet.pairs.length > MANY_PAIRS;
  learnSites(fleet.nodes);
  const wanted = fleet.pairs.filter(
    (pair) =>
      (!many || ui.all || ui.filter || ui.sites || needsAttention(pair)) &&
      (!ui.sites || sameSites(ui.sites, siteOf(pair.nodes[0]), siteOf(pair.nodes[1]))) &&
      (!ui.filter || matches(ui.filter, ...pair.nodes, ...pair.nodes.map(siteOf))),
  );
  const words = fleet.pairs.length ? counted(fleet.pairs, wanted.length) : 'No pair of nodes yet: a pair appears when two agents name each other as peers.';
  redraw(place('links-count'), [words], () => [h('span', {}, words)]);
  const cells = many ? siteCells(fleet.pairs) : null;
  redraw(place('links-sites'), [cells && signature(cells), String(ui.sites)], () => [cells && siteMatrix(cells, ui)]);
  const two = ui.sites ?? (ui.filter ? null : onlySite(cells));
  const inner = !many || !two ? [] : ui.sites ? wanted : fleet.pairs;
  redraw(place('links-nodes'), [String(ui.sites), ...inner.map(seen)], () => (inner.length ? [nodeMatrix(inner, two), ui.sites && chosen(ui.sites)] : []));
  if (many) wanted.sort((a, b) => rank(mood(b)) - rank(mood(a)));
  const shown = many ? wanted.slice(0, MOST_ROWS) : wanted;
  const left = wanted.length - shown.length;
  redraw(place('links-pairs'), [many, ui.filter, left, ...shown], () => [
    shown.length > 0 && pairTable(shown),
    left > 0 && h('p.empty', { 'data-key': 'rest' }, `${plural(left, 'more pair')} not shown: ${place('links-sites').firstChild ? 'choose a cell above, or ' : ''}filter by node or site.`),
    fleet.pairs.length > 0 && !shown.length && h('p.empty', { 'data-key': 'none' }, ui.filter ? 'No pair matches.' : 'No pair needs attention.'),
  ]);
}

// Each node's site by its name, and each pair's two sites by its: they hardly ever change, and are asked for at each draw.
const sites = new Map();
const sitesOfPairs = new Map();

function learnSites(nodes) {
  for (const { name, site } of nodes) {
    if (sites.get(name) === site) continue;
    sites.set(name, site);
    sitesOfPairs.clear();
  }
}

const siteOf = (name) => sites.get(name) || 'no site';

// "site\nsite", the lesser first.
function sitesOf(pair) {
  let found = sitesOfPairs.get(pair.name);
  if (found === undefined) {
    found = pair.nodes.map(siteOf).sort().join('\n');
    sitesOfPairs.set(pair.name, found);
  }
  return found;
}

function chosen([a, b]) {
  const button = h('button', { type: 'button', 'data-action': 'sites', 'data-a': a, 'data-b': b }, 'Show all sites');
  return h('p.chosen', { 'data-key': 'chosen' }, h('span', {}, `Only ${a === b ? `within ${a}` : `${a} and ${b}`}.`), ' ', button);
}

function counted(pairs, shown) {
  let troubled = 0;
  let away = 0;
  for (const pair of pairs) {
    // What is moved is no better than "info".
    const place = rank(mood(pair));
    if (place > 1) troubled += 1;
    if (place > 0 && moved(pair)) away += 1;
  }
  const parts = [plural(pairs.length, 'pair')];
  parts.push(troubled ? `${troubled} ${troubled === 1 ? 'needs' : 'need'} attention` : 'none needs attention');
  parts.push(away ? `${away} moved off the first path` : 'all on their first path');
  if (shown < pairs.length) parts.push(`${shown} match`);
  return parts.join(' · ');
}

const sameSites = ([a, b], c, d) => (a === c && b === d) || (a === d && b === c);

// --- pairs × paths -----------------------------------------------------------------------------------------------------

function pairTable(pairs) {
  const paths = [...new Set(pairs.flatMap((pair) => pair.paths.map((path) => path.path)))];
  const heading = (title) => h('th', { scope: 'col', role: 'columnheader' }, title);
  return h(
    'table.pairs',
    { role: 'table', 'aria-label': 'Pairs and their paths', 'data-key': 'pairs' },
    h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, heading('Pair'), paths.map((path) => heading(path)), heading('Traffic'))),
    h('tbody', { role: 'rowgroup' }, pairs.map((pair) => pairRow(pair, paths))),
  );
}

function pairRow(pair, paths) {
  const [a, b] = pair.nodes;
  return h(
    'tr',
    { role: 'row', 'data-key': pair.name },
    h('th', { scope: 'row', role: 'rowheader' }, h('a.pair-name', { href: pairUrl(pair) }, h('span', {}, a), h('span.between', { 'aria-label': 'and' }, ' ⇄ '), h('span', {}, b))),
    paths.map((name) => pathCell(pair, pair.paths.find((path) => path.path === name), name)),
    standingCell(pair),
  );
}

function pathCell(pair, path, name) {
  if (!path) return h('td', { role: 'cell', 'data-label': name }, h('span.muted', {}, 'none'));
  const { rtt, loss, relays } = figures(path);
  const { verdict } = path;
  const severity = known(verdict.severity);
  const carriers = senders(pair, path.path);
  const carries = carriers.length > 0;
  const facts = [duration(rtt), loss > 0 ? `${share(loss)} loss` : ABSENT, ...relays.map((value) => relay(value))];
  return h(
    'td',
    { role: 'cell', 'data-label': name, 'data-path': name, 'data-carries': carries ? 'yes' : 'no' },
    h(
      `span.path.${severity}`,
      {},
      h('span.path-top', {}, icon(verdict.state, severity, 14), h('span.path-state', {}, sentence(verdict.state.replaceAll('-', ' '))), h('span.path-facts', {}, facts.filter((fact) => fact !== ABSENT).join(' · '))),
      carries
        ? h('span.tag.traffic', {}, carriers.length === 2 ? 'traffic' : `traffic from ${carriers[0]}`)
        : h(`span.standby${path.proven ? '.proven' : ''}`, {}, path.proven ? '✓ standby proven' : 'standby not proven'),
    ),
  );
}

function standingCell(pair) {
  const [shape, severity, words] = standing(pair);
  const waits = pair.status === 'waiting' || pair.status === 'recommended';
  return h(
    'td.standing',
    { role: 'cell', 'data-label': 'Traffic' },
    h('span.status-line', {}, icon(shape, severity, 14), h('span', {}, words)),
    h('span.muted.below', {}, pair.origin === 'auto' ? 'automatic, ' : pair.origin === 'reflex' ? 'by reflex, ' : pair.origin === 'operator' ? 'by hand, ' : '', 'for ', since(pair.since_s, pair.heard)),
    waits && h('span.below.text-warning', {}, closed(sentence(pair.reason))),
  );
}

// --- sites × sites -----------------------------------------------------------------------------------------------------

// "site\nsite" → the worst of its pairs, how many are impaired or moved, and how many there are.
function siteCells(pairs) {
  const cells = new Map();
  for (const pair of pairs) {
    const key = sitesOf(pair);
    let cell = cells.get(key);
    if (!cell) cells.set(key, (cell = { worst: 'ok', troubled: 0, total: 0 }));
    const severity = mood(pair);
    cell.total += 1;
    if (severity === 'ok') continue;
    cell.troubled += 1;
    cell.worst = worst([cell.worst, severity]);
  }
  return cells;
}

// [site, site], where all pairs are within one.
function onlySite(cells) {
  if (cells?.size !== 1) return null;
  const [[one, other]] = [...cells.keys()].map((key) => key.split('\n'));
  return one === other ? [one, other] : null;
}

const signature = (cells) => [...cells].map(([key, cell]) => `${key} ${cell.worst} ${cell.troubled} ${cell.total}`).join('\n');

function siteMatrix(cells, ui) {
  const names = [...new Set([...cells.keys()].flatMap((key) => key.split('\n')))].sort();
  if (names.length < 2 || names.length > MOST_SITES) return null;
  return matrix({
    key: 'sites',
    caption: 'Pairs between sites: the worst state, and how many are impaired or moved. Choose one to see its nodes.',
    label: 'Sites by sites',
    dense: names.length > 12,
    lines: names,
    columns: names,
    cell(a, b) {
      const cell = a < b ? null : cells.get(`${b}\n${a}`);
      return cell && siteButton(b, a, cell, ui);
    },
  });
}

function matrix({ key, caption, label, dense, lines, columns, cell }) {
  return h(
    'div.scroll',
    { 'data-key': key, tabindex: '0', role: 'region', 'aria-label': label },
    h(
      `table.matrix${dense ? '.dense' : ''}`,
      {},
      h('caption', {}, caption),
      h('thead', {}, h('tr', {}, h('td', {}), columns.map((name) => h('th', { scope: 'col', 'data-key': name }, h('span', {}, name))))),
      h('tbody', {}, lines.map((line) => h('tr', { 'data-key': line }, h('th', { scope: 'row' }, line), columns.map((column) => h('td', { 'data-key': column }, cell(line, column)))))),
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
      'aria-pressed': ui.sites && sameSites(ui.sites, a, b) ? 'true' : 'false',
      'aria-label': label,
      title: label,
    },
    icon(cell.worst === 'ok' ? 'up' : cell.worst, cell.worst, 14),
    h('span', {}, cell.troubled ? cell.troubled : ''),
  );
}

const seals = new WeakMap();

// What the matrix of nodes shows of a pair: another text when that is another.
function seen(pair) {
  let found = seals.get(pair);
  if (found === undefined) {
    found = [pair.name, pair.observed, mood(pair), ...pair.paths.map(({ path, verdict }) => [path, verdict.state, verdict.severity])].join(' ');
    seals.set(pair, found);
  }
  return found;
}

// --- nodes × nodes of two sites ----------------------------------------------------------------------------------------

function nodeMatrix(pairs, [one, other]) {
  const cells = new Map();
  const lines = new Set();
  const columns = new Set();
  for (const pair of pairs) {
    const [a, b] = siteOf(pair.nodes[0]) === one ? pair.nodes : [pair.nodes[1], pair.nodes[0]];
    lines.add(a);
    columns.add(b);
    cells.set(`${a}\n${b}`, pair);
    if (one === other) {
      lines.add(b);
      columns.add(a);
      cells.set(`${b}\n${a}`, pair);
    }
  }
  if (!cells.size || lines.size * columns.size > MOST_CELLS) return null;
  return matrix({
    key: 'nodes',
    caption: `${one === other ? `Within ${one}` : `${one} and ${other}`}: each pair's paths in their order; the one that carries traffic is framed.`,
    label: 'Nodes by nodes',
    dense: columns.size > 6,
    lines: [...lines].sort(),
    columns: [...columns].sort(),
    cell(a, b) {
      const pair = cells.get(`${a}\n${b}`);
      return pair && (one !== other || a > b) && pairLink(pair);
    },
  });
}

function pairLink(pair) {
  const states = pair.paths.map((path) => `${path.path} ${path.verdict.state}${senders(pair, path.path).length ? ', traffic' : ''}`);
  const label = `${pair.nodes.join(' and ')}: ${states.join('; ')}`;
  return h(
    `a.cell.${mood(pair)}`,
    { href: pairUrl(pair), 'aria-label': label, title: label },
    pair.paths.map((path) => h('span.glyph', { 'data-carries': senders(pair, path.path).length ? 'yes' : 'no' }, icon(path.verdict.state, known(path.verdict.severity), 12))),
  );
}
