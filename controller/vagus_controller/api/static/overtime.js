// Figures over time as pages use them: which time is shown, what is known of it, and what comes on.

import * as api from './api.js';
import { h, replaceChildren } from './dom.js';
import { clock } from './format.js';
import { drawSoon } from './store.js';

const RANGES = { __proto__: null, '1h': 3600, '24h': 86400, '7d': 7 * 86400, '30d': 30 * 86400 };
const NAMES = { __proto__: null, '1h': '1 h', '24h': '24 h', '7d': '7 d', '30d': '30 d' };
const STEPS_S = [10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400];
// More points than this no screen of that width tells apart.
const POINTS = { wide: 720, narrow: 360 };
const FRESH_S = 10;
const LEAST_ZOOM_S = 120;
// Entries of history that are drawn in, of each kind.
const MOST_MARKS = 200;

// The slots of a history and its columns by name: {at, step, columns: Map(name → {low, mean, high, …about})}.
export function ofNode(history) {
  const columns = new Map();
  for (const column of history.columns) columns.set(`${column.metric} ${column.of}`, column);
  for (const link of history.links) addLink(columns, '', link);
  return { at: history.at, step: history.step_s, columns };
}

export function ofPair(history) {
  const columns = new Map();
  for (const end of history.ends) {
    for (const link of end.paths) addLink(columns, end.node, link);
    for (const way of ['direct', 'relayed', 'backup']) columns.set(`way ${end.node} ${way}`, { way, node: end.node, mean: end.ways[way] });
  }
  return { at: history.at, step: history.step_s, columns };
}

function addLink(columns, node, { peer, path, rtt_s: rtt, jitter_s: jitter, loss }) {
  for (const [metric, band] of Object.entries({ rtt, jitter, loss })) {
    if (band) columns.set(`${metric} ${node} ${peer} ${path}`, { ...band, metric, node, peer, path });
  }
}

// `old` up to where `fresh` begins, then `fresh`; nothing from before `from`.
export function joined(old, fresh, from) {
  if (!old || old.step !== fresh.step || !fresh.at.length) return old && !fresh.at.length ? old : fresh;
  const [first] = fresh.at;
  const kept = old.at.flatMap((at, slot) => (at < first && at + old.step > from ? [slot] : []));
  const gap = [];
  if (kept.length) for (let at = old.at[kept.at(-1)] + old.step; at < first; at += old.step) gap.push(at);
  const nothing = (length) => Array(length).fill(null);
  const columns = new Map();
  for (const name of new Set([...old.columns.keys(), ...fresh.columns.keys()])) {
    const [before, after] = [old.columns.get(name), fresh.columns.get(name)];
    const column = { ...before, ...after };
    for (const part of ['low', 'mean', 'high']) {
      if (!before?.[part] && !after?.[part]) continue;
      const then = before?.[part] ? kept.map((slot) => before[part][slot]) : nothing(kept.length);
      column[part] = [...then, ...nothing(gap.length), ...(after?.[part] ?? nothing(fresh.at.length))];
    }
    columns.set(name, column);
  }
  return { at: [...kept.map((slot) => old.at[slot]), ...gap, ...fresh.at], step: fresh.step, columns };
}

// Moves of a node's pairs, or of a pair, and incidents, as charts draw them; `ledger`, `events` for the list below.
export async function happened(subject, since, until) {
  const words = { subject, since, until, limit: MOST_MARKS };
  const [ledger, events, incidents] = await Promise.all([api.ledger(words), api.events(words), api.incidents({ subject, until, limit: MOST_MARKS, show: 'all' })]);
  const moves = ledger.filter((entry) => MOVES.has(entry.action));
  const marks = moves.map((entry) => ({ at: entry.at, severity: entry.action === 'failback' ? 'ok' : 'info', words: `${entry.action}: ${entry.subject}` }));
  const during = incidents.filter((one) => one.state !== 'merged' && (one.ended_at ?? until) > since);
  const spans = during.map((one) => ({ from: one.at, until: one.ended_at, severity: one.worst, words: `incident: ${one.title}` }));
  return { marks, spans, ledger, events, incidents: during };
}

const MOVES = new Set(['failover', 'failback', 'switchover', 'revert', 'adopt', 'drill']);

export class OverTime {
  data = null;
  trouble = '';
  loading = false;
  past = { marks: [], spans: [], ledger: [], events: [], incidents: [] };
  // The page's own time when it came.
  pastHeard = 0;
  #asked = 0;
  #timer = 0;
  #zoom = null;
  #pastAt = 0;

  // The choice of time is drawn into `root`. `load({since, until, step})` → columns; `subject`: whose history is drawn in.
  constructor(root, { load, subject }) {
    this.root = root;
    this.load = load;
    this.subject = subject;
    const given = new URLSearchParams(location.search);
    this.range = given.get('range') in RANGES ? given.get('range') : '24h';
    const [since, until] = [Number(given.get('since')), Number(given.get('until'))];
    if (since > 0 && until - since >= LEAST_ZOOM_S) this.#zoom = [since, until];
    root.addEventListener('change', (event) => this.choose(event.target.value));
    root.addEventListener('click', (event) => event.target.closest('button') && this.choose(this.range));
    document.addEventListener('visibilitychange', () => !document.hidden && this.refresh());
    this.draw();
  }

  // From, until: what the charts show now.
  get shown() {
    if (this.#zoom) return this.#zoom;
    const now = Date.now() / 1000;
    return [now - RANGES[this.range], now];
  }

  choose(range) {
    this.range = range;
    this.#zoom = null;
    this.#tell({ range });
  }

  zoom = (from, until) => {
    if (until - from < LEAST_ZOOM_S) return;
    this.#zoom = [Math.floor(from), Math.ceil(until)];
    this.#tell({ since: this.#zoom[0], until: this.#zoom[1] });
  };

  #tell(words) {
    history.replaceState(null, '', `?${new URLSearchParams(words)}`);
    this.data = null;
    this.#pastAt = 0;
    this.draw();
    drawSoon();
    this.refresh();
  }

  // Asks for what is not known yet, and again when there should be more.
  async refresh() {
    clearTimeout(this.#timer);
    this.#asked += 1;
    const asked = this.#asked;
    const [from, until] = this.shown;
    const points = matchMedia('(min-width: 46rem)').matches ? POINTS.wide : POINTS.narrow;
    const step = this.#zoom ? undefined : STEPS_S.find((one) => (until - from) / one <= points);
    // The newest slots are not whole yet.
    const since = this.data?.at.length && !this.#zoom ? Math.max(this.data.at.at(-1) - 2 * this.data.step, from) : from;
    this.loading = this.data === null;
    try {
      const fresh = await this.load({ since, until: this.#zoom ? until : undefined, step });
      const past = Date.now() - this.#pastAt > 60_000 ? await happened(this.subject(), from, until) : this.past;
      if (asked !== this.#asked) return;
      if (past !== this.past) {
        this.#pastAt = Date.now();
        this.pastHeard = performance.now();
      }
      this.past = past;
      this.data = joined(this.data, fresh, from);
      this.trouble = '';
    } catch (error) {
      if (asked !== this.#asked) return;
      this.trouble = error.message;
    }
    this.loading = false;
    drawSoon();
    const pause = Math.max(FRESH_S, this.data?.step ?? 0, this.trouble ? 15 : 0);
    if (!this.#zoom && !document.hidden) this.#timer = setTimeout(() => this.refresh(), Math.min(pause, 300) * 1000);
  }

  // All of it is another.
  anew() {
    this.data = null;
    drawSoon();
    this.refresh();
  }

  // What happened has changed.
  again() {
    this.#pastAt = 0;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.refresh(), 1000);
  }

  draw() {
    const choice = (range) =>
      h('label', { 'data-key': range }, h('input', { type: 'radio', name: 'range', value: range, checked: !this.#zoom && range === this.range }), NAMES[range]);
    replaceChildren(
      this.root,
      h('fieldset.choice', { 'data-key': 'choice' }, h('legend.sr', {}, 'How far back'), Object.keys(RANGES).map(choice)),
      this.#zoom && h('p.muted', { 'data-key': 'zoom' }, `${clock(this.#zoom[0])} to ${clock(this.#zoom[1])} `, h('button', { type: 'button' }, `Back to ${NAMES[this.range]}`)),
    );
    for (const input of this.root.querySelectorAll('input')) input.checked = !this.#zoom && input.value === this.range;
  }
}
