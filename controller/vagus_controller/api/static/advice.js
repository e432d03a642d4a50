// What a person should do now, the most urgent first. Pure: the picture in, [severity, sentence, link?] out.

import { closed, known, plural, rank, sentence } from './format.js';
import { dark, dead, needsAttention, pairUrl } from './pairs.js';

const names = (list) => (list.length > 3 ? `${list.slice(0, 3).join(', ')} and ${list.length - 3} more` : list.join(', '));
const pairNames = (pairs) => names(pairs.map((pair) => pair.nodes.join('–')));
const it = (count, one, many) => (count === 1 ? one : many);
const bad = ({ severity }) => rank(severity) > rank('info');
const worstFirst = (parts, verdict) => [...parts].sort((a, b) => rank(verdict(b).severity) - rank(verdict(a).severity));
const worstPath = (pair) => worstFirst(pair.paths, (path) => path.verdict)[0];

export function advice(fleet) {
  const found = [];
  const say = (severity, words, href) => found.push({ severity, words, href });
  const { observer, quorum, pairs, nodes } = fleet;
  if (observer.state === 'blind') {
    say('critical', 'Look at this controller’s own uplink and its broker before anything else: it moves nothing until it hears the fleet again.');
    return found;
  }
  if (!nodes.length) {
    say('info', 'Set up an agent on a node; it appears here with its first report.');
    return found;
  }
  const silent = quorum.members.filter((member) => member.etcd && !member.etcd.answering).map((member) => member.node);
  if (quorum.verdict.state === 'lost') {
    say('critical', `Bring back etcd members until a majority answers${silent.length ? `: ${names(silent)} ${it(silent.length, 'does', 'do')} not answer` : ''}. Restart none that answers.`);
  } else if (quorum.margin === 0 && quorum.voters > 1) {
    say('warning', `Restart and power off no etcd member: one more failure loses quorum.${silent.length ? ` ${names(silent)} ${it(silent.length, 'does', 'do')} not answer.` : ''}`);
  } else if (quorum.verdict.state === 'churning') {
    say('warning', `Find out why etcd changes its leader: a slow disk, load, or a slow path between members. ${closed(sentence(quorum.verdict.reason))}`);
  } else if (quorum.members.length && bad(quorum.verdict)) {
    say(known(quorum.verdict.severity), `See to etcd: ${closed(quorum.verdict.reason)}`);
  }
  const uneasy = pairs.filter(needsAttention);
  const asked = uneasy.filter((pair) => pair.status === 'recommended');
  if (asked.length) say('warning', `Approve or leave ${plural(asked.length, 'move')} that vagus recommends: ${pairNames(asked)}.`, '/failover');
  const stuck = uneasy.filter((pair) => pair.status === 'waiting' && dark(pair));
  if (stuck.length) {
    say('critical', `Traffic of ${pairNames(stuck)} is on a dead path and cannot move: ${closed(stuck[0].reason)}`, pairUrl(stuck[0]));
  }
  const down = observer.state === 'connected' ? worstFirst(nodes.filter((node) => bad(node.liveness)), (node) => node.liveness) : [];
  if (down.length) say(known(down[0].liveness.severity), `See to ${names(down.map((node) => node.name))}: ${closed(down[0].liveness.reason)}`);
  // Of a node that is away no path carries anything, and there is nothing to move.
  const away = new Set(down.map((node) => node.name));
  const late = uneasy.filter((pair) => dark(pair) && !stuck.includes(pair) && !pair.nodes.some((node) => away.has(node)));
  if (late.length) say('critical', `See whether traffic of ${pairNames(late)} leaves its dead path in the next seconds: ${closed(late[0].paths.find(dead).verdict.reason)}`, pairUrl(late[0]));
  const cut = uneasy.filter((pair) => pair.paths.length > 0 && dead(pair.paths[0]) && !dark(pair));
  if (cut.length) {
    const held = cut.every((pair) => pair.status === 'held');
    say('warning', `Nothing at once: traffic goes by another path. Then mend the ${cut[0].paths[0].path} of ${common(cut)}; ${held ? 'a person put it there, and must fail it back' : 'vagus goes home by itself once it has held'}.`);
  }
  const waiting = uneasy.filter((pair) => pair.status === 'waiting' && !stuck.includes(pair));
  if (waiting.length) say('info', `${pairNames(waiting)} ${it(waiting.length, 'waits', 'wait')} to move: ${closed(waiting[0].reason)}`);
  const busy = nodes.filter((node) => ['critical', 'warning'].includes(node.load.severity));
  if (busy.length) say('warning', `Relieve ${names(busy.map((node) => node.name))}: ${closed(busy[0].load.reason)}`);
  const bare = pairs.filter((pair) => pair.paths.some((path) => !path.proven) && !dead(pair.paths[0]) && !dark(pair));
  if (bare.length) {
    const path = bare[0].paths.find((one) => !one.proven);
    say('warning', `Mend a standby before it is needed: ${path.path} of ${common(bare)} is not proven. ${closed(sentence(path.unproven))}`, pairUrl(bare[0]));
  }
  const ill = uneasy.filter((pair) => pair.status !== 'waiting' && pair.status !== 'recommended' && pair.paths.every((path) => path.proven && !dead(path)) && pair.paths.some((path) => bad(path.verdict)));
  if (ill.length) {
    const [pair] = worstFirst(ill, (one) => worstPath(one).verdict);
    const { path, verdict } = worstPath(pair);
    const others = ill.length > 1 ? ` ${plural(ill.length - 1, 'more pair')} ${it(ill.length - 1, 'needs', 'need')} it too.` : '';
    say(known(verdict.severity), `Look at the ${path} of ${pairNames([pair])}: ${closed(verdict.reason)}${others}`, pairUrl(pair));
  }
  for (const node of nodes.filter((one) => one.drift.length).slice(0, 1)) say('warning', `Look at the routes of ${node.name}: ${closed(node.drift[0])}`);
  return found;
}

// What these pairs have in common, in words: the node that is in all of them, or they themselves.
function common(pairs) {
  const shared = pairs.length > 1 ? pairs[0].nodes.filter((node) => pairs.every((pair) => pair.nodes.includes(node))) : [];
  if (shared.length) return shared[0];
  const counts = new Map();
  for (const pair of pairs) for (const node of pair.nodes) counts.set(node, (counts.get(node) ?? 0) + 1);
  const worst = [...counts].sort(([, a], [, b]) => b - a).filter(([, count]) => count > 2);
  const covering = worst.slice(0, 3).map(([node]) => node);
  if (pairs.every((pair) => pair.nodes.some((node) => covering.includes(node)))) return covering.join(', ');
  return pairNames(pairs);
}
