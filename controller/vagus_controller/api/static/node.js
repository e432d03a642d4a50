// One node: who it is, how it is and what to do, its figures over time, its links, and what its agent is set to do.

import { advice } from './advice.js';
import { agentBody, machineBody, overlayBody, servicesBody } from './machine.js';
import { since } from './ages.js';
import * as api from './api.js';
import { h, icon, replaceChildren } from './dom.js';
import { closed, duration, known, plural, rank, text, worst } from './format.js';
import { timeline } from './history.js';
import { incidentList } from './incidentlines.js';
import { nodeMood, notes } from './nodes.js';
import { NodeCharts } from './nodecharts.js';
import { linksBody } from './nodelinks.js';
import { OverTime, ofNode } from './overtime.js';
import { dark, dead, moved } from './pairs.js';
import { onPauseClick, pauseButton, pauseList, pausesOn } from './pauses.js';
import { MOODS, page, subject } from './shell.js';
import { drawSoon, listen, named, store } from './store.js';

const place = (id) => document.getElementById(id);
const name = subject();

let agent = null;
let trouble = '';
// What the agent's settings were asked for.
let askedFor = '';
// whether figures are asked for, of a node that is known
let watching = false;

const time = new OverTime(place('range'), { load: async (words) => ofNode(await api.nodeHistory(name, { ...words, peer: charts.peers(myPairs(store.fleet), name) })), subject: () => name });
const charts = new NodeCharts(place('charts'), time);

const myPairs = (fleet) => (fleet?.pairs ?? []).filter((pair) => pair.nodes.includes(name));

async function ask() {
  try {
    agent = await api.agent(name);
    trouble = '';
  } catch (error) {
    trouble = error.message;
    askedFor = '';
  }
  drawSoon();
}

const concerns = (entry) => entry.subject.split('/')[0].split('--').includes(name);
for (const topic of ['event', 'ledger', 'incident']) listen(topic, (entry) => concerns(entry) && time.again());

function draw(fleet) {
  const node = named(fleet.nodes, name);
  place('missing').hidden = Boolean(node);
  place('known').hidden = !node;
  document.querySelector('.jumps').hidden = !node;
  place('name').textContent = name;
  if (!node) {
    replaceChildren(place('actions'));
    replaceChildren(place('missing'), h('p.empty', {}, `There is no node ${name}. A node appears when its agent has reported once. `, h('a', { href: '/' }, 'Back to the fleet')));
    return;
  }
  const pairs = myPairs(fleet);
  const now = [node.version, node.epoch, node.generation, node.drift.length, node.report?.session, node.liveness.state].join(' ');
  if (now !== askedFor) {
    askedFor = now;
    ask();
  }
  if (!watching) {
    watching = true;
    time.refresh();
  }
  place('site').textContent = node.site || 'Node';
  const pauses = pausesOn(fleet, node);
  replaceChildren(place('actions'), !pauses.some(({ scope }) => scope === 'node') && pauseButton(node));
  replaceChildren(place('standing'), ...standing(fleet, node, pairs));
  replaceChildren(place('pauses'), pauseList(fleet, pauses));
  replaceChildren(place('who'), ...who(node));
  replaceChildren(place('links'), ...linksBody(node, pairs, agent));
  replaceChildren(place('machine'), ...machineBody(node));
  replaceChildren(place('services'), ...servicesBody(node));
  replaceChildren(place('overlay'), ...overlayBody(fleet, node));
  say('agent-trouble', trouble);
  replaceChildren(place('agent'), ...agentBody(node, agent));
  drawTime(node);
}

function say(id, words) {
  if (place(id).textContent !== words) place(id).textContent = words;
  place(id).hidden = words === '';
}

// --- how it is -----------------------------------------------------------------------------------------------------------

function standing(fleet, node, pairs) {
  const severity = worst([nodeMood(node), ...notes(node).map(([one]) => one), linksMood(pairs)]);
  const todo = advice({ ...fleet, nodes: [node], pairs }).sort((a, b) => rank(b.severity) - rank(a.severity));
  return [
    h('p.state-line', {}, icon(severity, severity, 24), h('span', {}, `${MOODS[severity]}: ${inWords(node, pairs)}`)),
    h('p', {}, h('strong', {}, 'What to do: '), todo.length ? todo.slice(0, 3).map(({ words, href }) => h('span', {}, href ? h('a', { href }, words) : words, ' ')) : 'nothing.'),
    h('ul.troubles', {}, notes(node).map(([one, words]) => h('li', {}, icon(one, one, 14), h('span', {}, words)))),
  ];
}

// Of its links together: traffic on a dead path, a dead path without traffic, traffic that is not at home.
function linksMood(pairs) {
  if (pairs.some(dark)) return 'critical';
  if (pairs.some((pair) => pair.paths.some(dead))) return 'warning';
  return pairs.some(moved) ? 'info' : 'ok';
}

function inWords(node, pairs) {
  const away = pairs.filter(moved).length;
  const parts = [node.liveness.state === 'fresh' ? 'its agent reports' : node.liveness.state.replaceAll('-', ' ')];
  if (known(node.load.severity) !== 'ok' && node.report) parts.push(`load ${node.load.state}`);
  if (pairs.length) parts.push(away ? `traffic to ${away} of ${plural(pairs.length, 'peer')} is off its first path` : `traffic to ${pairs.length === 1 ? 'its peer' : `all ${pairs.length} peers`} is on its first path`);
  else parts.push('it has no peers');
  return closed(parts.join(', '));
}

function who(node) {
  const { report } = node;
  const fact = (term, value) => h('div', {}, h('dt', {}, term), h('dd', {}, value));
  return [
    fact('Site', text(node.site)),
    fact('Service addresses', node.addresses.length ? node.addresses.join(', ') : 'not told yet'),
    fact('Agent', text(node.version)),
    fact('Machine up for', since(report?.system?.uptime_s, node.heard)),
    fact('Boot', h('code', { title: agent?.boot_id || null }, agent?.boot_id ? agent.boot_id.slice(0, 8) : '—')),
    fact('Last report', node.report_age_s === null ? 'none yet' : since(node.report_age_s, node.heard, 'ago')),
    fact('Broker', text(node.broker)),
    fact('Reports lost', node.reports_lost ? `${node.reports_lost} in this session` : 'none in this session'),
    fact('Agent’s own delay', duration(report ? (report.lag_s ?? 0) : null)),
  ];
}

// --- over time -----------------------------------------------------------------------------------------------------------

function drawTime(node) {
  say('charts-trouble', time.trouble && `${closed(time.trouble)} Asked again in 15 s.`);
  const empty = time.data && !time.data.at.length;
  place('charts-words').textContent = time.loading ? 'Loading…' : empty ? 'Nothing was recorded in this time: the controller was off, or did not know this node yet.' : '';
  place('charts').classList.toggle('loading', time.loading);
  charts.draw(node);
  const { ledger, events, incidents } = time.past;
  replaceChildren(place('incidents'), incidentList(incidents, 'No incident was about this node in the time shown.', time.pastHeard));
  replaceChildren(place('past'), ledger.length || events.length ? timeline(events, ledger) : h('p.empty', {}, 'Nothing happened here in the time shown, and nothing was decided.'));
  place('all').href = `/events?${new URLSearchParams({ subject: name })}`;
}

document.addEventListener('click', onPauseClick);

page({
  draw,
  opened() {
    askedFor = '';
    watching = false;
  },
  title: () => name,
});

