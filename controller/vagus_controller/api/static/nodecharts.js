// The charts of a node: which figures stand together, and what is said where there are none.

import { Chart, extent } from './chart.js';
import { h, replaceChildren } from './dom.js';
import { celsius, duration, number, share } from './format.js';

// Up to so many peers are drawn in one chart, and of so many all figures are asked for.
const MOST_PEERS = 4;
const ALL_UP_TO = 12;

const SHARE = { unit: 'share', format: share };

// [title, how, [[column, name]…], words where the machine has none]. A column "disk_used" means each of its kind.
const MACHINE = [
  ['Load per core', { format: (value) => number(value, 2) }, [['load', 'load, 1 min']], 'The agent tells no load.'],
  ['Pressure (PSI)', { ...SHARE }, [['psi_cpu', 'waits for a core'], ['psi_io', 'waits for a disk'], ['psi_memory', 'waits for memory']], 'This kernel measures no pressure. On a Raspberry Pi, psi=1 on the kernel’s command line turns it on.'],
  ['CPU by state', { ...SHARE, stack: true }, [['cpu', 'programs and kernel'], ['iowait', 'idle, a disk awaited'], ['steal', 'stolen by the hypervisor']], 'The agent tells no CPU states.'],
  ['Memory', { ...SHARE, top: 1 }, [['memory_used', 'memory in use'], ['swap_used', 'swap in use']], 'The agent tells nothing of memory.'],
  ['Disks', { ...SHARE, top: 1 }, [['disk_used', 'full'], ['disk_busy', 'busy']], 'The agent tells of no disk.'],
  ['Temperature', { unit: '°C', format: celsius, floor: null }, [['temperature', 'processor']], 'This machine tells no temperature.'],
  ['etcd: a linearizable read', { unit: 's', format: duration }, [['etcd_read', 'latency']], ''],
  ['Programs, in cores', { format: (value) => number(value, 2) }, [['process', 'cores']], ''],
];

export class NodeCharts {
  #charts = new Map();
  #shown = null;
  #peer = '';
  // All peers where they are too many to ask for all, and those that were asked for; else null.
  #known = null;
  #asked = null;

  constructor(root, time) {
    this.root = root;
    this.time = time;
    this.choice = h('div.peers-choice', { hidden: true });
    this.choice.addEventListener('change', (event) => {
      this.#peer = event.target.value;
      this.#shown = null;
      if (this.#asked) this.time.anew();
      else this.draw(this.node);
    });
    for (const [title, how, , absent] of MACHINE) this.#add(title, { ...how, absent });
    root.append(this.choice);
    this.#add('Round trip, by link', { unit: 's', format: duration, absent: 'No link was measured in this time.' });
    this.#add('Loss, by link', { ...SHARE, absent: 'No link was measured in this time.' });
  }

  // Whose links to ask for; null: everybody's. Of many, the worst ones now, or the one that is chosen, as long as what is
  // known goes on.
  peers(pairs, name) {
    const names = pairs.map((pair) => pair.nodes.find((one) => one !== name));
    this.#known = names.length > ALL_UP_TO ? names : null;
    if (!this.#known) this.#asked = null;
    else if (!this.time.data) this.#asked = this.#peer ? [this.#peer] : worstNow(pairs, name);
    return this.#asked;
  }

  #add(title, how) {
    const chart = new Chart({ ...how, title, chosen: this.time.zoom });
    this.#charts.set(title, chart);
    this.root.append(chart.element);
  }

  draw(node) {
    this.node = node;
    const { data, past } = this.time;
    // Drawn once for what was fetched; in between only the time goes on.
    if (!data || (this.#shown?.data === data && this.#shown.past === past)) return;
    this.#shown = { data, past };
    const [from, until] = this.time.shown;
    const common = { at: data.at, step: data.step, from, until, marks: past.marks, spans: past.spans };
    for (const [title, , wanted, absent] of MACHINE) {
      const series = wanted.flatMap(([metric, name], index) => this.#kind(data, metric, name, index));
      const strips = title === 'Temperature' ? throttling(data, series.length) : [];
      const chart = this.#charts.get(title);
      chart.element.hidden = !series.length && absent === '';
      chart.show({ ...common, series, strips });
    }
    this.#drawLinks(data, common);
  }

  // All columns of a metric: one, or one of each disk or program.
  #kind(data, metric, name, dash) {
    const found = [...data.columns.values()].filter((column) => column.metric === metric && column.peer === undefined);
    return found.map((column, index) => ({
      ...column,
      ...(column.of ? { name: metric === 'process' ? column.of : `${column.of} ${name}`, colour: index + (metric === 'disk_busy' ? 4 : 0), dash } : { name, colour: dash, dash }),
    }));
  }

  #drawLinks(data, common) {
    const links = [...data.columns.values()].filter((column) => column.peer !== undefined);
    const peers = [...new Set(links.map((link) => link.peer))].sort();
    const many = peers.length > MOST_PEERS;
    const chosen = peers.includes(this.#peer) ? [this.#peer] : many ? worstOf(links, peers) : peers;
    this.#drawChoice(this.#known ?? peers);
    const paths = [...new Set(links.map((link) => link.path))].sort((a, b) => rung(this.node, a) - rung(this.node, b));
    for (const [title, metric] of [['Round trip, by link', 'rtt'], ['Loss, by link', 'loss']]) {
      const series = links
        .filter((link) => link.metric === metric && chosen.includes(link.peer))
        .map((link) => ({ ...link, name: `${link.peer} by ${link.path}`, colour: chosen.indexOf(link.peer), dash: paths.indexOf(link.path) }))
        .sort((a, b) => a.colour - b.colour || a.dash - b.dash);
      this.#charts.get(title).show({ ...common, series });
    }
  }

  #drawChoice(peers) {
    this.choice.hidden = peers.length <= MOST_PEERS;
    if (this.choice.hidden) return;
    const options = [['', `The ${MOST_PEERS} worst${this.#known ? ' now' : ''}`], ...peers.map((peer) => [peer, peer])];
    replaceChildren(this.choice, h('label', { for: 'peer' }, 'Links to'), h('select', { id: 'peer' }, options.map(([value, words]) => h('option', { value, selected: value === this.#peer }, words))));
  }
}

const rung = (node, path) => {
  const at = node.paths.indexOf(path);
  return at < 0 ? node.paths.length : at;
};

function worstNow(pairs, name) {
  const figures = (pair) => pair.paths.map((path) => path.ends.find((end) => end.node === name)?.link).filter(Boolean);
  const most = (pair, key) => Math.max(0, ...figures(pair).map((link) => link[key] ?? 0));
  const sorted = [...pairs].sort((a, b) => most(b, 'loss_10s') - most(a, 'loss_10s') || most(b, 'rtt_s') - most(a, 'rtt_s'));
  return sorted.slice(0, MOST_PEERS).map((pair) => pair.nodes.find((one) => one !== name));
}

// The peers with the most loss, then the longest round trips.
function worstOf(links, peers) {
  const mean = (peer, metric) => Math.max(...links.filter((link) => link.peer === peer && link.metric === metric).map((link) => extent(link).mean ?? 0), 0);
  return [...peers].sort((a, b) => mean(b, 'loss') - mean(a, 'loss') || mean(b, 'rtt') - mean(a, 'rtt')).slice(0, MOST_PEERS).sort();
}

function throttling(data, known) {
  if (!known) return [];
  const strip = (metric, name) => ({ name, severity: 'warning', mean: data.columns.get(`${metric} `)?.mean ?? null });
  return [strip('throttled', 'throttled'), strip('undervoltage', 'too little voltage')].filter((one) => one.mean);
}
