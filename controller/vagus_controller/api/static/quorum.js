// The quorum card: is etcd able to decide, and how far is it from not being able to.

import { h, icon } from './dom.js';
import { age, bytes, closed, duration, known, number, plural, sentence, text } from './format.js';

// The margin in words: how many more members may fail.
export function margin(quorum) {
  if (quorum.margin === null) return 'How many members may fail is not known.';
  if (quorum.margin < 0 || quorum.verdict.state === 'lost') return 'A majority is missing: etcd takes no writes.';
  if (quorum.margin === 0) return 'One failure from loss.';
  return `Survives the loss of ${plural(quorum.margin, 'more member')}.`;
}

export function quorumCard(fleet, elapsed) {
  const { quorum } = fleet;
  if (!quorum.members.length && !quorum.voters) {
    return [h('p.state-line', {}, icon('unknown', 'unknown', 20), 'No etcd'), h('p.muted', {}, closed(sentence(quorum.verdict.reason)))];
  }
  const severity = known(quorum.verdict.severity);
  return [
    h('p.state-line', {}, icon(severity, severity, 22), h('span', {}, sentence(quorum.verdict.state))),
    h('p', {}, closed(sentence(quorum.verdict.reason))),
    h(`p.margin.${severity}`, {}, margin(quorum)),
    h(
      'dl.facts',
      {},
      fact('Leader', text(quorum.leader)),
      fact('Term', number(quorum.term)),
      fact('Answering', `${quorum.answering} of ${quorum.voters}`),
      fact('Leader changes', `${quorum.leader_changes_1h} in the last hour`),
    ),
    h('ul.members', { 'aria-label': 'Members' }, quorum.members.map((member) => memberLine(member, quorum, elapsed))),
    evidence(quorum.verdict),
  ];
}

function fact(term, value) {
  return h('div', {}, h('dt', {}, term), h('dd', {}, value));
}

function memberLine(member, quorum, elapsed) {
  const { etcd } = member;
  const leader = member.node === quorum.leader;
  const [shape, severity, words] = memberState(etcd);
  const facts = etcd?.answering
    ? [
        etcd.read_error ? `read failed: ${etcd.read_error}` : `read ${duration(etcd.read_s)}`,
        `db ${bytes(etcd.db_bytes)}`,
        `heard ${age(member.age_s === null ? null : member.age_s + elapsed)}`,
        etcd.learner ? 'learner' : null,
        ...(etcd.alarms ?? []).map((alarm) => `alarm ${alarm}`),
      ].filter(Boolean)
    : [etcd?.reason || (etcd ? '' : 'nothing heard yet')].filter(Boolean);
  return h(
    'li',
    { 'data-key': member.node },
    icon(shape, severity, 14),
    h('span.member-name', {}, member.node),
    leader && h('span.tag', {}, 'leader'),
    h('span.muted.grow', {}, [words, ...facts].join(' · ')),
  );
}

function memberState(etcd) {
  if (!etcd) return ['unknown', 'unknown', 'not known'];
  if (!etcd.answering) return ['down', 'critical', 'not answering'];
  if (etcd.alarms?.length || etcd.read_error) return ['degraded', 'warning', 'answering'];
  return ['up', 'ok', 'answering'];
}

export function evidence(verdict) {
  if (!verdict.evidence?.length || known(verdict.severity) === 'ok') return null;
  return h('ul.evidence', {}, verdict.evidence.map((line) => h('li', {}, line)));
}

