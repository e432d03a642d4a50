// What a person should do now, the most urgent first. Pure: the picture in, [severity, sentence, link?] out.

import { closed, plural, sentence } from './format.js';
import { dark, dead, needsAttention } from './pairs.js';

const names = (list) => (list.length > 3 ? `${list.slice(0, 3).join(', ')} and ${list.length - 3} more` : list.join(', '));
const pairNames = (pairs) => names(pairs.map((pair) => pair.nodes.join('–')));
const it = (count, one, many) => (count === 1 ? one : many);

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
  }
  const uneasy = pairs.filter(needsAttention);
  const asked = uneasy.filter((pair) => pair.status === 'recommended');
  if (asked.length) say('warning', `Approve or leave ${plural(asked.length, 'move')} that vagus recommends: ${pairNames(asked)}.`, '/failover');
  const stuck = uneasy.filter((pair) => pair.status === 'waiting' && dark(pair));
  if (stuck.length) {
    say('critical', `Traffic of ${pairNames(stuck)} is on a dead path and cannot move: ${closed(stuck[0].reason)}`, `/pairs/${stuck[0].name}`);
  }
  const down = nodes.filter((node) => ['critical', 'warning'].includes(node.liveness.severity));
  if (down.length) say(down[0].liveness.severity, `See to ${names(down.map((node) => node.name))}: ${closed(down[0].liveness.reason)}`);
  const cut = uneasy.filter((pair) => pair.paths.some(dead) && !stuck.includes(pair));
  if (cut.length) {
    const [where, path] = common(cut);
    say('warning', `Nothing at once: traffic goes by another path. Then mend the ${path} of ${where}; vagus goes home by itself once it has held.`);
  }
  const waiting = uneasy.filter((pair) => pair.status === 'waiting' && !stuck.includes(pair));
  if (waiting.length) say('info', `${pairNames(waiting)} ${it(waiting.length, 'waits', 'wait')} to move: ${closed(waiting[0].reason)}`);
  const busy = nodes.filter((node) => ['critical', 'warning'].includes(node.load.severity));
  if (busy.length) say('warning', `Relieve ${names(busy.map((node) => node.name))}: ${closed(busy[0].load.reason)}`);
  const bare = pairs.filter((pair) => !pair.paths.some(dead) && pair.paths.some((path) => !path.proven));
  if (bare.length) {
    const path = bare[0].paths.find((one) => !one.proven);
    say('warning', `Mend a standby before it is needed: ${path.path} of ${pairNames(bare)} is not proven. ${closed(sentence(path.unproven))}`, `/pairs/${bare[0].name}`);
  }
  for (const node of nodes.filter((one) => one.drift.length).slice(0, 1)) say('warning', `Look at the routes of ${node.name}: ${closed(node.drift[0])}`);
  return found;
}

// What pairs with a dead path have in common, in words, and the path: the node that is in all of them, or they themselves.
function common(pairs) {
  const path = pairs[0].paths.find(dead).path;
  const shared = pairs.length > 1 ? pairs[0].nodes.filter((node) => pairs.every((pair) => pair.nodes.includes(node))) : [];
  if (shared.length) return [shared[0], path];
  const counts = new Map();
  for (const pair of pairs) for (const node of pair.nodes) counts.set(node, (counts.get(node) ?? 0) + 1);
  const worst = [...counts].sort(([, a], [, b]) => b - a).filter(([, count]) => count > 2);
  const covering = worst.slice(0, 3).map(([node]) => node);
  if (pairs.every((pair) => pair.nodes.some((node) => covering.includes(node)))) return [covering.join(', '), path];
  return [pairNames(pairs), path];
}
