// The table of nodes: what each machine says of itself, and what is wrong with it in words below its row.

import { since } from './ages.js';
import { h, icon } from './dom.js';
import { ABSENT, bytes, celsius, closed, known, number, rank, sentence, share, text, worst } from './format.js';
import { matches } from './pairs.js';
import { Table } from './table.js';

// Up to so many nodes, each keeps its place; of more, the troubled come first.
const FEW_NODES = 12;

const moods = new WeakMap();

export function nodeMood(node) {
  let found = moods.get(node);
  if (found === undefined) {
    found = worst([known(node.liveness.severity), known(node.load.severity), node.drift.length ? 'warning' : 'ok']);
    moods.set(node, found);
  }
  return found;
}

export const nodeUrl = (name) => `/nodes/${encodeURIComponent(name)}`;

const system = (node) => node.report?.system ?? null;
const perCore = (node) => (system(node) ? system(node).load1 / system(node).cores : null);

const COLUMNS = [
  {
    title: 'Node',
    value: (node) => node.name,
    cell: (node) => [h('a.node-name', { href: nodeUrl(node.name), title: node.addresses.join(', ') }, node.name), node.site && h('span.muted.below', {}, node.site)],
  },
  { title: 'State', value: (node) => -rank(nodeMood(node)), cell: alive },
  { title: 'Load per core', value: perCore, first: 'desc', cell: load },
  { title: 'Pressure', value: (node) => greatestPressure(system(node)), first: 'desc', cell: (node) => pressure(system(node)) },
  {
    title: 'Temperature',
    value: (node) => system(node)?.temperature_c ?? null,
    first: 'desc',
    cell: (node) => h('span', { class: hot(system(node)?.temperature_c) }, celsius(system(node)?.temperature_c)),
  },
  { title: 'Power', value: (node) => throttled(system(node)?.throttling), first: 'desc', cell: (node) => power(system(node)?.throttling) },
  { title: 'Memory', value: (node) => memoryUsed(system(node)), first: 'desc', cell: (node) => memory(system(node)) },
  { title: 'Disk', value: (node) => fullest(system(node))?.used ?? null, first: 'desc', cell: (node) => disk(system(node)) },
  {
    title: 'Up',
    value: (node) => system(node)?.uptime_s ?? null,
    cell: (node) => since(system(node)?.uptime_s, node.heard),
  },
  { title: 'Agent', value: (node) => node.version, cell: (node) => text(node.version) },
  { title: 'Broker', value: (node) => node.broker || node.report?.broker || '', cell: (node) => text(node.broker || node.report?.broker) },
];

// node → load per core in the last hour, from /sparklines
let sparks = {};

export class Nodes {
  #table;

  // `nodes` of /sparklines.
  lines(nodes) {
    sparks = nodes;
    this.#table.again();
  }

  constructor(root) {
    this.#table = new Table(root, { label: 'Nodes', className: 'nodes', columns: COLUMNS, key: (node) => node.name, below, none: 'No node yet, or none of that name.' });
  }

  draw(fleet, filter) {
    const found = filter ? fleet.nodes.filter((node) => matches(filter, node.name, node.site)) : [...fleet.nodes];
    if (fleet.nodes.length > FEW_NODES) found.sort((a, b) => rank(nodeMood(b)) - rank(nodeMood(a)));
    this.#table.show(found);
  }
}

function below(node) {
  const troubles = notes(node);
  return troubles.length ? h('ul.troubles', {}, troubles.map(([severity, line]) => note(severity, line))) : null;
}

function alive(node) {
  const severity = known(node.liveness.severity);
  const late = node.liveness.state !== 'fresh' && node.report_age_s !== null;
  return [
    h('span.status-line', {}, icon(severity === 'ok' ? 'up' : severity, severity, 14), sentence(node.liveness.state.replaceAll('-', ' '))),
    late && h('span.muted.below', {}, since(node.report_age_s, node.heard, 'ago')),
  ];
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

function load(node) {
  const told = system(node);
  if (!told) return [ABSENT];
  const severity = known(node.load.severity);
  return [
    h(
      'span.measure',
      { title: `load ${number(told.load1, 2)} / ${number(told.load5, 2)} / ${number(told.load15, 2)} on ${told.cores} cores` },
      number(perCore(node), 2),
      sparks[node.name] ? spark(sparks[node.name], severity) : bar(perCore(node) / FULL_BAR, severity),
    ),
    severity !== 'ok' && h(`span.below.text-${severity}`, {}, node.load.state),
  ];
}

const [SPARK_WIDTH, SPARK_HEIGHT] = [72, 18];

// The last hour as a line, on the bar's scale or up to its own highest.
function spark(values, severity) {
  const top = Math.max(1, ...values);
  const step = SPARK_WIDTH / Math.max(values.length - 1, 1);
  let pen = 'M';
  const path = values.map((value, at) => {
    if (value === null) {
      pen = 'M';
      return '';
    }
    const point = `${pen}${(at * step).toFixed(1)} ${(SPARK_HEIGHT - 1 - (value / top) * (SPARK_HEIGHT - 2)).toFixed(1)}`;
    pen = 'L';
    return point;
  });
  return h(
    `svg.spark.${severity}`,
    { viewBox: `0 0 ${SPARK_WIDTH} ${SPARK_HEIGHT}`, width: `${SPARK_WIDTH / 16}rem`, height: `${SPARK_HEIGHT / 16}rem`, 'aria-hidden': 'true' },
    h('path', { d: path.join('') || 'M0 0' }),
  );
}

function bar(value, severity) {
  const width = Math.max(0, Math.min(1, value)) * 40;
  return h(
    `svg.bar.${severity}`,
    { viewBox: '0 0 40 4', width: '2.5rem', height: '.25rem', 'aria-hidden': 'true' },
    h('rect', { class: 'track', width: 40, height: 4, rx: 2 }),
    h('rect', { class: 'level', width: width.toFixed(1), height: 4, rx: 2 }),
  );
}

// Of cores, disks and memory the worst; null where nothing is measured.
function greatestPressure(system) {
  const told = [system?.psi_cpu, system?.psi_io, system?.psi_memory].filter(Boolean);
  return told.length ? Math.max(...told.map((psi) => psi.some)) : null;
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

// Slowed down now, earlier, or never; null where no firmware tells.
function throttled(flags) {
  if (!flags) return null;
  if (flags.undervoltage || flags.throttled || flags.frequency_capped || flags.soft_temp_limit) return 2;
  return flags.undervoltage_since_boot || flags.throttled_since_boot ? 1 : 0;
}

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

function memoryUsed(system) {
  const { memory_bytes: total, memory_available_bytes: available } = system ?? {};
  return total && available != null ? 1 - available / total : null;
}

function memory(system) {
  const used = memoryUsed(system);
  if (used === null) return [ABSENT];
  const total = bytes(system.memory_bytes);
  return [h('span', { title: `${bytes(system.memory_available_bytes)} available of ${total}` }, share(used)), h('span.muted.below', {}, `of ${total}`)];
}

const fullest = (system) => (system?.disks ?? []).reduce((top, one) => (top && top.used >= one.used ? top : one), null);

function disk(system) {
  const found = fullest(system);
  if (!found) return [ABSENT];
  return [h('span', { title: `${bytes(found.free_bytes)} free`, class: found.used >= 0.9 ? 'text-warning' : null }, share(found.used)), h('span.muted.below', {}, found.mount)];
}
