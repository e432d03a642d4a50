// What a node's machine and agent tell now, part by part. What a machine has not is said to be absent.

import { since } from './ages.js';
import { h, icon } from './dom.js';
import { ABSENT, bytes, celsius, closed, duration, number, plural, sentence, share, text } from './format.js';

const fact = (term, value) => h('div', {}, h('dt', {}, term), h('dd', {}, value));
const none = (words) => h('p.empty', {}, words);
const WIDTH = 100;

function level(name, value, words, severity = 'ok') {
  const width = Math.max(0, Math.min(1, value)) * WIDTH;
  return [
    h('dt', { title: name }, name),
    h(
      `svg.bar.${severity}`,
      { viewBox: `0 0 ${WIDTH} 6`, preserveAspectRatio: 'none', 'aria-hidden': 'true' },
      h('rect', { class: 'track', width: WIDTH, height: 6 }),
      h('rect', { class: 'level', width: width.toFixed(1), height: 6 }),
    ),
    h('dd', {}, words),
  ];
}

export function machineBody(node) {
  const told = node.report?.system;
  if (!told) return [none('Its agent has told nothing of the machine yet.')];
  const kinds = [['cores', told.psi_cpu], ['disks', told.psi_io], ['memory', told.psi_memory]];
  const used = told.memory_bytes && told.memory_available_bytes != null ? 1 - told.memory_available_bytes / told.memory_bytes : null;
  const states = [['programs', told.cpu_user], ['kernel', told.cpu_system], ['disk awaited', told.cpu_iowait], ['stolen', told.cpu_steal]];
  const pressures = kinds.filter(([, psi]) => psi);
  return [
    h(
      'dl.facts',
      {},
      fact('Cores', told.cores),
      fact('Load, 1 / 5 / 15 min', `${number(told.load1, 2)} / ${number(told.load5, 2)} / ${number(told.load15, 2)}`),
      fact('CPU', states.some(([, value]) => value != null) ? states.map(([name, value]) => `${name} ${share(value)}`).join(', ') : 'not told'),
      fact('Some task waits for', pressures.length ? pressures.map(([name, psi]) => `${name} ${share(psi.some)}`).join(', ') : 'not told: this kernel measures no pressure'),
      fact('Temperature', told.temperature_c == null ? 'not told: no sensor' : celsius(told.temperature_c)),
      fact('Power and throttling', power(told.throttling)),
    ),
    h('h3', {}, 'Memory and disks'),
    h(
      'dl.of',
      {},
      used === null ? [h('dt', {}, 'memory'), h('span'), h('dd', {}, ABSENT)] : level('memory', used, `${share(used)} of ${bytes(told.memory_bytes)}`, used >= 0.95 ? 'warning' : 'ok'),
      told.swap_bytes ? level('swap', (told.swap_used_bytes ?? 0) / told.swap_bytes, `${bytes(told.swap_used_bytes)} of ${bytes(told.swap_bytes)}`) : null,
      (told.disks ?? []).map((disk) => level(disk.mount, disk.used, `${share(disk.used)}, ${bytes(disk.free_bytes)} free`, disk.used >= 0.9 ? 'warning' : 'ok')),
    ),
    told.disk_io?.length ? h('p.muted', {}, told.disk_io.map((disk) => `${disk.device}: busy ${share(disk.busy)}, reads ${bytes(disk.read_bps ?? 0)}/s, writes ${bytes(disk.write_bps ?? 0)}/s`).join(' · ')) : null,
    told.processes?.length
      ? [
          h('h3', {}, 'Programs'),
          h('ul.list', {}, told.processes.map((one) => h('li', { 'data-key': one.name }, h('span.grow', {}, one.count > 1 ? `${one.name} × ${one.count}` : one.name), h('span', {}, `${number(one.cpu, 2)} cores, ${bytes(one.rss_bytes)}`)))),
        ]
      : null,
  ];
}

function power(flags) {
  if (!flags) return 'not told: no Raspberry Pi firmware';
  const names = [['undervoltage', 'too little voltage'], ['throttled', 'throttled'], ['frequency_capped', 'frequency capped'], ['soft_temp_limit', 'soft temperature limit']];
  const now = names.filter(([flag]) => flags[flag]).map(([, words]) => words);
  const before = names.filter(([flag]) => flags[`${flag}_since_boot`] && !flags[flag]).map(([, words]) => words);
  return [now.length ? h('span.text-warning', {}, sentence(now.join(', '))) : 'fine', before.length ? h('span.muted', {}, `; since boot: ${before.join(', ')}`) : null];
}

const REFLEXES = {
  __proto__: null,
  orphaned: 'Acts alone while it hears no leading controller: a dead path is left for a proven one.',
  always: 'Acts alone at once, controller or not: a dead path is left for a proven one.',
  off: 'Never acts alone.',
};

export function agentBody(node, agent) {
  if (!agent) return [none('Asking the controller…')];
  if (!agent.version && !agent.paths.length) return [none('Its agent has not said yet what it is set to do.')];
  const { steering } = agent;
  return [
    h('ul.list', {}, [
      h('li', {}, icon(agent.reflex === 'off' ? 'info' : 'ok', agent.reflex === 'off' ? 'info' : 'ok', 14), h('span', {}, h('strong', {}, `Reflex ${text(agent.reflex)}. `), REFLEXES[agent.reflex] ?? '')),
      h('li', {}, icon(agent.automatic ? 'ok' : 'info', agent.automatic ? 'ok' : 'info', 14), h('span', {}, agent.automatic ? 'vagus may move its traffic by itself.' : 'Only a person may move its traffic (automatic = false).')),
      agent.etcd_member && h('li', {}, icon('info', 'info', 14), h('span', {}, 'It runs a member of etcd.')),
    ]),
    h('h3', {}, 'Assignments'),
    steering ? assignments(node, steering) : none('It has not told yet what it made of its assignments.'),
    h('h3', {}, 'Paths, the first is home'),
    h('ol.list', {}, agent.paths.map((path) => h('li', { 'data-key': path.name }, h('span.grow', {}, h('strong', {}, path.name), path.metered ? ' metered' : ''), h('span.muted', {}, `a probe each ${duration(path.idle_interval_s)} when idle`)))),
    h('h3', {}, plural(agent.peers.length, 'peer')),
    agent.peers.length
      ? h('ul.list', {}, agent.peers.map((peer) => h('li', { 'data-key': peer.name }, h('span', {}, h('strong', {}, peer.name), ` ${peer.addresses.join(', ')} by ${peer.paths.join(', ')}`, peer.prefixes.length ? `; with it ${peer.prefixes.join(', ')}` : ''))))
      : none('It names no peers.'),
  ];
}

function assignments(node, { state, reason }) {
  const severity = state === 'applied' ? 'ok' : 'warning';
  const words = `${sentence(state)}: epoch ${node.epoch}, generation ${node.generation}`;
  return h('ul.list', {}, [
    h('li', {}, icon(severity, severity, 14), h('span', {}, reason ? `${words}: ${closed(reason)}` : `${words}.`)),
    node.drift.length ? node.drift.map((line) => h('li', {}, icon('warning', 'warning', 14), h('span', {}, `Drift: ${closed(line)}`))) : h('li', {}, icon('ok', 'ok', 14), h('span', {}, 'No drift: its routes and rules are as they should be.')),
  ]);
}

export function servicesBody(node) {
  const services = node.report?.services ?? [];
  if (!services.length) return [none('No service is checked here. [[checks]] in the agent’s configuration names those that must answer after a move.')];
  return [
    h('ul.list', {}, services.map((one) => h('li', { 'data-key': `${one.name} ${one.peer ?? ''}` }, icon(one.ok ? 'ok' : 'down', one.ok ? 'ok' : 'critical', 14), h('span.grow', {}, h('strong', {}, one.name), one.peer ? ` at ${one.peer}` : '', one.ok ? '' : `: ${closed(one.reason || 'no answer')}`), h('span.muted', {}, one.ok ? duration(one.latency_s) : '')))),
  ];
}

export function overlayBody(fleet, node) {
  const { etcd, tailscale } = node.report ?? {};
  return [h('h3', {}, 'etcd'), ...etcdBody(fleet, node, etcd), h('h3', {}, 'Tailscale'), ...tailscaleBody(tailscale, node)];
}

function etcdBody(fleet, node, etcd) {
  if (!etcd) return [none('It runs no member of etcd, or its agent has not told of one.')];
  if (!etcd.answering) return [h('p.note.critical', {}, icon('critical', 'critical', 16), h('span', {}, closed(`Its member does not answer${etcd.reason ? `: ${etcd.reason}` : ''}`)))];
  const learner = etcd.learner ? 'learner' : 'voter';
  const leads = fleet.quorum.leader === node.name;
  return [
    h(
      'dl.facts',
      {},
      fact('Role', leads ? `${learner}, leads` : learner),
      fact('Version', text(etcd.version)),
      fact('Member', h('code', {}, text(etcd.member_id))),
      fact('Term', number(etcd.term)),
      fact('Linearizable read', etcd.read_s == null ? `failed${etcd.read_error ? `: ${etcd.read_error}` : ''}` : duration(etcd.read_s)),
      fact('Database', bytes(etcd.db_bytes)),
      fact('Behind the log by', etcd.raft_index != null && etcd.applied_index != null ? plural(etcd.raft_index - etcd.applied_index, 'entry', 'entries') : ABSENT),
      fact('Asked', since(etcd.age_s ?? 0, node.heard, 'ago')),
      fact('Alarms', etcd.alarms?.length ? h('span.text-critical', {}, etcd.alarms.join(', ')) : 'none'),
    ),
  ];
}

function tailscaleBody(tailscale, node) {
  if (!tailscale) return [none('Its agent tells nothing of Tailscale.')];
  if (tailscale.error) return [h('p.note.warning', {}, icon('warning', 'warning', 16), h('span', {}, closed(tailscale.error)))];
  const left = tailscale.key_expires_s;
  return [
    h(
      'dl.facts',
      {},
      fact('State', text(tailscale.backend_state)),
      fact('Key', left == null ? 'does not expire, or not told' : left < 0 ? h('span.text-critical', {}, 'expired') : `expires in ${duration(left - (performance.now() - node.heard) / 1000)}`),
      fact('Health', tailscale.health?.length ? h('span.text-warning', {}, tailscale.health.join('; ')) : 'no complaint'),
    ),
  ];
}
