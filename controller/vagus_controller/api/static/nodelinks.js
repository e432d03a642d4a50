// The links of a node: each peer, the path that its traffic takes, what was wanted, and every path's state.

import { h, icon } from './dom.js';
import { ABSENT, closed, duration, rank, relay, sentence, share, text } from './format.js';
import { nodeUrl } from './nodes.js';
import { home, mood, pairUrl, standing } from './pairs.js';

const MOST_ROWS = 20;
const COLUMNS = ['Peer', 'Traffic goes by', 'Wanted', 'Paths, as this node sees them', 'Last trial'];

// Of many, those that need attention first, and the rest folded.
export function linksBody(node, pairs, agent) {
  if (!pairs.length) return [h('p.empty', {}, 'This node has no peers: neither its agent names one, nor does another name it.')];
  if (pairs.length <= MOST_ROWS) return [table(node, pairs, agent)];
  const sorted = [...pairs].sort((a, b) => rank(mood(b)) - rank(mood(a)));
  const rest = sorted.slice(MOST_ROWS);
  return [table(node, sorted.slice(0, MOST_ROWS), agent), h('details.rest', { 'data-key': 'rest' }, h('summary', {}, `${rest.length} more`), table(node, rest, agent))];
}

function table(node, pairs, agent) {
  return h(
    'table.cards',
    { role: 'table', 'aria-label': `Links of ${node.name}`, 'data-key': 'table' },
    h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, COLUMNS.map((title) => h('th', { scope: 'col', role: 'columnheader' }, title)))),
    h('tbody', { role: 'rowgroup' }, pairs.map((pair) => row(node, pair, agent))),
  );
}

function row(node, pair, agent) {
  const end = pair.nodes.indexOf(node.name);
  const peer = pair.nodes[1 - end];
  const observed = pair.observed[end];
  const reflex = agent?.steering?.reflex[peer];
  const [shape, severity, words] = standing(pair);
  const trial = agent?.steering?.trials[peer];
  const cell = (column, ...content) => h('td', { role: 'cell', 'data-label': COLUMNS[column] }, content);
  return h(
    'tr',
    { role: 'row', 'data-key': pair.name },
    h('th', { scope: 'row', role: 'rowheader' }, h('a', { href: nodeUrl(peer) }, peer)),
    cell(1, observed ? observed : h('span.warn-text', {}, 'none of our routes'), observed && observed !== pair.assigned && h('span.warn-text.below', {}, 'not what is wanted'), reflex && h('span.muted.below', {}, `put there by the agent alone: ${reflex}`)),
    cell(2, h('span.status-line', {}, icon(shape, severity, 14), pair.assigned), h('span.muted.below', {}, pair.assigned === home(pair) && pair.status === 'settled' ? 'its first path' : words)),
    cell(3, h('ul.list', {}, pair.paths.map((path) => pathLine(path, end)))),
    cell(4, trial ? trialWords(trial) : ABSENT, h('a.below', { href: pairUrl(pair) }, 'The pair')),
  );
}

function pathLine(path, end) {
  const { link } = path.ends[end];
  const severity = { up: 'ok', degraded: 'warning', suspect: 'warning', down: 'critical' }[link?.state] ?? 'unknown';
  const facts = link ? [duration(link.rtt_s), `loss ${share(link.loss_10s)}`, link.relay && relay(link.relay)].filter(Boolean).join(', ') : 'has not told';
  return h(
    'li',
    { 'data-key': path.path },
    icon(link?.state ?? 'unknown', severity, 14),
    h('span', {}, h('strong', {}, path.path), ` ${link ? link.state : ''} `, h('span.muted', {}, facts), link?.obstacle && h('span.warn-text.below', {}, closed(sentence(link.obstacle))), link?.reason && h('span.muted.below', {}, closed(link.reason))),
  );
}

function trialWords(trial) {
  const words = `${sentence(trial.state)} on ${text(trial.path)}`;
  return h(`span.${trial.state === 'failed' ? 'warn-text' : 'plain'}`, {}, trial.reason ? `${words}: ${closed(trial.reason)}` : words);
}
