// The table of nodes: what each machine says of itself, and what is wrong with it in words below its row.

import { h, icon } from './dom.js';
import { ABSENT, age, bytes, celsius, closed, duration, known, number, rank, sentence, share, text, worst } from './format.js';
import { matches } from './links.js';

// Above this many nodes rows are grouped by site.
export const MANY_NODES = 12;
const MOST_ROWS = 200;
const COLUMNS = ['Node', 'State', 'Load per core', 'Pressure', 'Temperature', 'Power', 'Memory', 'Disk', 'Up', 'Agent', 'Broker', 'Last report'];

const mood = (node) => worst([known(node.liveness.severity), known(node.load.severity), node.drift.length ? 'warning' : 'ok']);

export function nodesBody(fleet, elapsed, ui) {
  if (!fleet.nodes.length) return [h('p.empty', {}, 'No node has spoken yet.')];
  const many = fleet.nodes.length > MANY_NODES;
  const found = fleet.nodes.filter((node) => matches(ui.filter, node.name, node.site));
  // In a small fleet every node keeps its place; in a large one the troubled come first.
  found.sort((a, b) => (many ? rank(mood(b)) - rank(mood(a)) : 0) || (a.name < b.name ? -1 : 1));
  const nodes = found.slice(0, MOST_ROWS);
  const groups = new Map();
  for (const node of nodes) {
    const name = many ? node.site || 'no site' : '';
    groups.set(name, [...(groups.get(name) ?? []), node]);
  }
  const bodies = [...groups].sort(([a], [b]) => (a < b ? -1 : 1)).map(([site, members]) =>
    h(
      'tbody',
      { role: 'rowgroup', 'data-key': site },
      site && h('tr.site', { role: 'row', 'data-key': '/site' }, h('th', { role: 'rowheader', scope: 'rowgroup', colspan: COLUMNS.length }, site)),
      members.map((node) => rows(node, elapsed, !site)),
    ),
  );
  return [
    h(
      'table.cards.nodes',
      { role: 'table', 'aria-label': 'Nodes', 'data-key': 'table' },
      h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, COLUMNS.map((name) => h('th', { scope: 'col', role: 'columnheader' }, name)))),
      bodies,
    ),
    found.length > nodes.length && h('p.empty', { 'data-key': 'rest' }, `${found.length - nodes.length} more not shown: filter by node or site.`),
  ];
}

function rows(node, elapsed, withSite) {
  const { report } = node;
  const system = report?.system ?? null;
  const cell = (column, ...content) => h('td', { role: 'cell', 'data-label': COLUMNS[column] }, content);
  const alive = known(node.liveness.severity);
  const troubles = notes(node);
  const row = h(
    'tr',
    { role: 'row', 'data-key': node.name, class: troubles.length ? 'has-notes' : null },
    h(
      'th',
      { scope: 'row', role: 'rowheader' },
      h('span.node-name', { title: node.addresses.join(', ') }, node.name),
      withSite && node.site && h('span.muted.below', {}, node.site),
    ),
    cell(1, h('span.status-line', {}, icon(alive === 'ok' ? 'up' : alive, alive, 14), sentence(node.liveness.state))),
    cell(2, load(node, system)),
    cell(3, pressure(system)),
    cell(4, h('span', { class: hot(system?.temperature_c) }, celsius(system?.temperature_c))),
    cell(5, power(system?.throttling)),
    cell(6, memory(system)),
    cell(7, disk(system)),
    cell(8, duration(system?.uptime_s == null ? null : system.uptime_s + elapsed)),
    cell(9, text(node.version)),
    cell(10, text(node.broker || report?.broker)),
    cell(11, age(node.report_age_s === null ? null : node.report_age_s + elapsed)),
  );
  if (!troubles.length) return [row];
  const words = h('td', { role: 'cell', colspan: COLUMNS.length }, h('ul', {}, troubles.map(([severity, line]) => note(severity, line))));
  return [row, h('tr.notes', { role: 'row', 'data-key': `${node.name}/notes` }, words)];
}

const note = (severity, line) => h('li', {}, icon(severity, severity, 14), h('span', {}, line));

// [severity, sentence] per thing that is wrong with the node.
export function notes(node) {
  const found = [];
  for (const verdict of [node.liveness, node.load]) {
    const severity = known(verdict.severity);
    if (severity !== 'ok') found.push([severity, closed(sentence(verdict.reason))]);
  }
  for (const drift of node.drift) found.push(['warning', `Routes differ from what is desired: ${closed(drift)}`]);
  const tailscale = node.report?.tailscale;
  if (tailscale?.error) found.push(['warning', `Tailscale: ${closed(tailscale.error)}`]);
  else if (tailscale && tailscale.backend_state !== 'Running') found.push(['warning', `Tailscale is ${tailscale.backend_state}.`]);
  for (const line of tailscale?.health ?? []) found.push(['warning', `Tailscale: ${closed(line)}`]);
  for (const service of node.report?.services ?? []) {
    if (!service.ok) found.push(['warning', `Service ${service.name}${service.peer ? ` at ${service.peer}` : ''}: ${closed(service.reason || 'no answer')}`]);
  }
  return found;
}

const FULL_BAR = 3;

function load(node, system) {
  if (!system) return [ABSENT];
  const perCore = system.load1 / system.cores;
  const severity = known(node.load.severity);
  const state = severity === 'ok' ? null : h(`span.below.text-${severity}`, {}, node.load.state);
  return [
    h(
      'span.measure',
      { title: `load ${number(system.load1, 2)} / ${number(system.load5, 2)} / ${number(system.load15, 2)} on ${system.cores} cores` },
      number(perCore, 2),
      bar(perCore / FULL_BAR, severity),
    ),
    state,
  ];
}

function bar(value, severity) {
  const width = Math.max(0, Math.min(1, value)) * 40;
  return h(
    `svg.bar.${severity}`,
    { viewBox: '0 0 40 4', width: 40, height: 4, 'aria-hidden': 'true' },
    h('rect', { class: 'track', width: 40, height: 4, rx: 2 }),
    h('rect', { class: 'level', width: width.toFixed(1), height: 4, rx: 2 }),
  );
}

function pressure(system) {
  const kinds = [['cpu', system?.psi_cpu], ['io', system?.psi_io], ['mem', system?.psi_memory]];
  if (kinds.every(([, psi]) => !psi)) return [ABSENT];
  return [
    h(
      'span.psi',
      { title: 'Share of the last 10 s in which some task waited (PSI)' },
      kinds.map(([name, psi]) => h('span', {}, h('span.muted', {}, `${name} `), psi ? share(psi.some) : ABSENT)),
    ),
  ];
}

const HOT_C = 80; // where a Raspberry Pi 4 begins to slow itself down

const hot = (value) => (value != null && value >= HOT_C ? 'text-warning' : null);

function power(throttling) {
  if (!throttling) return [ABSENT];
  const now = [
    throttling.undervoltage && 'under-voltage',
    throttling.throttled && 'throttled',
    throttling.frequency_capped && 'frequency capped',
    throttling.soft_temp_limit && 'soft temperature limit',
  ].filter(Boolean);
  const before = [
    throttling.undervoltage_since_boot && !throttling.undervoltage && 'under-voltage',
    throttling.throttled_since_boot && !throttling.throttled && 'throttled',
  ].filter(Boolean);
  return [
    now.length ? h('span.text-warning', {}, sentence(now.join(', '))) : h('span', {}, 'Fine'),
    before.length ? h('span.muted.below', {}, `earlier: ${before.join(', ')}`) : null,
  ];
}

function memory(system) {
  const total = system?.memory_bytes;
  const available = system?.memory_available_bytes;
  if (!total || available == null) return [ABSENT];
  return [h('span', { title: `${bytes(available)} available of ${bytes(total)}` }, share(1 - available / total)), h('span.muted.below', {}, `of ${bytes(total)}`)];
}

// The fullest disk.
function disk(system) {
  const fullest = (system?.disks ?? []).reduce((top, one) => (top && top.used >= one.used ? top : one), null);
  if (!fullest) return [ABSENT];
  return [h('span', { title: `${bytes(fullest.free_bytes)} free`, class: fullest.used >= 0.9 ? 'text-warning' : null }, share(fullest.used)), h('span.muted.below', {}, fullest.mount)];
}
