// The charts of a pair: round trip and loss of each path from both ends, and which way traffic went.

import { Chart } from './chart.js';
import { h, replaceChildren } from './dom.js';
import { duration, share } from './format.js';

const NONE = 'This pair was not measured in this time.';
const WAYS = [
  ['direct', 'by its first path, directly'],
  ['relayed', 'by its first path, through a relay'],
  ['backup', 'by another path'],
];

export class PairCharts {
  #shown = null;

  constructor(root, ways, time) {
    this.time = time;
    this.ways = ways;
    const add = (title, how) => {
      const chart = new Chart({ ...how, title, chosen: time.zoom });
      root.append(chart.element);
      return chart;
    };
    this.rtt = add('Round trip, by path and end', { unit: 's', format: duration, absent: NONE });
    this.loss = add('Loss, by path and end', { unit: 'share', format: share, absent: NONE });
    this.way = add('Way of traffic, share of time', { unit: 'share', format: share, top: 1, stack: true, absent: 'Which way traffic went was not recorded in this time.' });
  }

  draw(pair) {
    const { data, past } = this.time;
    // Drawn once for what was fetched; in between only the time goes on.
    if (!data || (this.#shown?.data === data && this.#shown.past === past)) return;
    this.#shown = { data, past };
    const [from, until] = this.time.shown;
    const common = { at: data.at, step: data.step, from, until, marks: past.marks, spans: past.spans };
    const paths = pair.paths.map((path) => path.path);
    for (const [chart, metric] of [[this.rtt, 'rtt'], [this.loss, 'loss']]) {
      const links = [...data.columns.values()].filter((column) => column.metric === metric);
      const series = links
        .map((link) => ({ ...link, name: `${link.path}, from ${link.node}`, colour: Math.max(paths.indexOf(link.path), 0), dash: pair.nodes.indexOf(link.node) }))
        .sort((a, b) => a.colour - b.colour || a.dash - b.dash);
      chart.show({ ...common, series });
    }
    // Both ends nearly always agree: the first one's is drawn, the shares below are of each.
    const way = (name) => data.columns.get(`way ${pair.nodes[0]} ${name}`);
    const series = WAYS.filter(([name]) => way(name)?.mean?.some((value) => value !== null)).map(([name, words], at) => ({ mean: way(name).mean, name: words, colour: at, dash: 0 }));
    this.way.show({ ...common, series });
    this.#drawShares(pair, data);
  }

  #drawShares(pair, data) {
    replaceChildren(
      this.ways,
      pair.nodes.map((node) => {
        const told = WAYS.map(([name, words]) => [mean(data.columns.get(`way ${node} ${name}`)?.mean), words]);
        const known = told.some(([value]) => value !== null);
        return h('p', { 'data-key': node }, h('strong', {}, `${node} sent `), known ? told.filter(([value]) => value > 0).map(([value, words], at) => [at ? ', ' : '', h('strong', {}, share(value)), ` ${words}`]) : 'which way is not known for this time', '.');
      }),
    );
  }
}

// Of what is known, null when nothing is.
function mean(values = []) {
  const known = (values ?? []).filter((value) => value !== null);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}
