// The quorum card: is etcd able to decide, and how far is it from not being able to.

import { since } from './ages.js';
import { h, icon, redraw } from './dom.js';
import { closed, duration, known, number, plural, sentence, text } from './format.js';
import { named } from './store.js';

// etcd's heartbeat is 100 ms; a read that waits that long for a disk costs leaders.
const SLOW_READ_S = 0.1;
const BUSY_DISK = 0.9;

// The margin in words: how many more members may fail.
export function margin(quorum) {
  if (quorum.margin === null) return 'How many members may fail is not known.';
  if (quorum.margin < 0 || quorum.verdict.state === 'lost') return 'A majority is missing: etcd takes no writes.';
  if (quorum.margin === 0) return 'One failure from loss.';
  return `Survives the loss of ${plural(quorum.margin, 'more member')}.`;
}

export function drawQuorum(target, fleet) {
  const { quorum } = fleet;
  const members = quorum.members.map(({ node, etcd, age_s: age }) => [node, etcd?.answering, duration(etcd?.read_s), etcd?.read_error, etcd?.alarms, etcd?.reason, age === null ? null : Math.round(quorum.heard / 1000 - age)]);
  const { since_s: _, ...verdict } = quorum.verdict;
  const slow = slowDisks(fleet);
  redraw(target, [JSON.stringify([verdict, members, slow, quorum.leader, quorum.term, quorum.answering, quorum.voters, quorum.margin, quorum.leader_changes_1h])], () => card(fleet, slow));
}

function card(fleet, slow) {
  const { quorum } = fleet;
  if (!quorum.members.length && !quorum.voters) {
    return [h('p.state-line', {}, icon('unknown', 'unknown', 20), 'No etcd'), h('p.muted', {}, closed(sentence(quorum.verdict.reason)))];
  }
  const severity = known(quorum.verdict.severity);
  return [
    h('p.state-line', {}, icon(severity, severity, 22), h('span', {}, sentence(quorum.verdict.state.replaceAll('-', ' ')))),
    h('p', {}, closed(sentence(quorum.verdict.reason))),
    h(`p.note.${marginSeverity(quorum)}`, {}, margin(quorum)),
    h(
      'dl.facts',
      {},
      fact('Leader', text(quorum.leader)),
      fact('Term', number(quorum.term)),
      fact('Answering', `${quorum.answering} of ${quorum.voters}`),
      fact('Leader changes', `${quorum.leader_changes_1h} an hour`),
    ),
    h('ul.members', { 'aria-label': 'Members' }, quorum.members.map((member) => memberLine(member, fleet))),
    slow.map((words) => h('p.note.warning', {}, words)),
    evidence(quorum.verdict),
  ];
}

// The margin's own colour: one failure from loss is a warning even while all is healthy.
function marginSeverity({ margin: left, verdict, voters }) {
  if (left === null) return 'unknown';
  if (verdict.state === 'lost' || left < 0) return 'critical';
  return left === 0 && voters > 1 ? 'warning' : 'ok';
}

// What says that a member waits for its disk.
function slowDisks(fleet) {
  const found = [];
  for (const { node: name, etcd } of fleet.quorum.members) {
    const disks = named(fleet.nodes, name)?.report?.system?.disk_io ?? [];
    const busy = disks.find((disk) => disk.busy >= BUSY_DISK);
    if (busy) found.push(`Slow disk? ${name}: ${busy.device} is busy ${Math.round(busy.busy * 100)} % of the time; etcd waits for it.`);
    else if (etcd?.read_s >= SLOW_READ_S) found.push(`Slow disk or link? A read through ${name} takes ${duration(etcd.read_s)}.`);
  }
  return found;
}

function fact(term, value) {
  return h('div', {}, h('dt', {}, term), h('dd', {}, value));
}

function memberLine(member, { quorum }) {
  const { etcd } = member;
  const leader = member.node === quorum.leader;
  const [shape, severity] = memberState(etcd);
  const facts = etcd?.answering
    ? [
        etcd.read_error ? `read failed: ${etcd.read_error}` : `read ${duration(etcd.read_s)}`,
        etcd.learner ? 'learner' : null,
        ...(etcd.alarms ?? []).map((alarm) => `alarm ${alarm}`),
      ].filter(Boolean)
    : [etcd ? closed(`not answering${etcd.reason ? `: ${etcd.reason}` : ''}`) : 'nothing heard yet'];
  return h(
    'li',
    { 'data-key': member.node },
    icon(shape, severity, 14),
    h('a.member-name', { href: `/nodes/${encodeURIComponent(member.node)}` }, member.node),
    leader && h('span.tag', {}, 'leader'),
    h('span.muted.grow', {}, facts.join(' · '), member.age_s !== null && [facts.length ? ' · ' : '', 'heard ', since(member.age_s, quorum.heard, 'age')]),
  );
}

function memberState(etcd) {
  if (!etcd) return ['unknown', 'unknown'];
  if (!etcd.answering) return ['down', 'critical'];
  if (etcd.alarms?.length || etcd.read_error) return ['degraded', 'warning'];
  return ['up', 'ok'];
}

export function evidence(verdict) {
  if (!verdict.evidence?.length || known(verdict.severity) === 'ok') return null;
  return h('ul.evidence', {}, verdict.evidence.map((line) => h('li', {}, line)));
}
