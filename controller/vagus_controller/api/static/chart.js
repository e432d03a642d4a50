// Figures over time, drawn by uPlot: means as lines within bands from lowest to highest, gaps where nothing is known, what
// happened drawn in. Below each stand its figures, in words and numbers.
//
// The colours are those of the legend's swatches, so they follow the appearance; see chart.css.

import { h, icon, replaceChildren } from './dom.js';
import { ABSENT, clock } from './format.js';
import uPlot from './vendor/uPlot.esm.js';

export const COLOURS = 8;
const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3]];
const DAY_S = 86400;
const MOST_BANDS = 3;
// A mark is told when the cursor is so near, in CSS pixels.
const NEAR = 7;
const LEAST_TOP = { __proto__: null, share: 0.05, s: 0.01 };

const seen = (value) => value !== null && value !== undefined;
const two = (number) => String(number).padStart(2, '0');

// Lowest, mean, highest and last of a column; all null where it has nothing.
export function extent({ low, mean, high }) {
  let [least, most, total, count, last] = [null, null, 0, 0, null];
  mean.forEach((value, slot) => {
    if (!seen(value)) return;
    const [bottom, top] = [low?.[slot] ?? value, high?.[slot] ?? value];
    least = least === null ? bottom : Math.min(least, bottom);
    most = most === null ? top : Math.max(most, top);
    total += value;
    count += 1;
    last = value;
  });
  return { low: least, mean: count ? total / count : null, high: most, last };
}

// Sums from the first series on: null only where nothing at all is known.
export function stacked(columns) {
  let below = null;
  return columns.map((column) => {
    below = column.map((value, slot) => {
      const under = below?.[slot] ?? null;
      return seen(value) ? value + (under ?? 0) : under;
    });
    return below;
  });
}

function timeWords(splits, increment) {
  return splits.map((at, index) => {
    const when = new Date(at * 1000);
    const day = `${when.getDate()} ${when.toLocaleString('en-GB', { month: 'short' })}`;
    if (increment >= DAY_S) return day;
    const time = `${two(when.getHours())}:${two(when.getMinutes())}`;
    return index > 0 && when.getHours() === 0 && when.getMinutes() === 0 ? day : time;
  });
}

export class Chart {
  #plot = null;
  #shape = '';
  #series = [];
  #given = null;
  #hidden = new Set();

  // `title`; `format(value)`: in words; `unit` share, s, °C or "": how high the scale is at least; `floor`: where it
  // begins, null: by the figures; `stack`: the series are parts of a whole; `absent`: words where there is nothing;
  // `chosen(from, until)`: a part of the time was marked with the pointer.
  constructor({ title, format, unit = '', floor = 0, top = null, stack = false, absent = 'Nothing is known of this.', chosen = null }) {
    this.format = format;
    this.floor = floor;
    this.top = top ?? LEAST_TOP[unit] ?? 1;
    this.stack = stack;
    this.chosen = chosen;
    this.told = h('p.chart-told', { 'aria-hidden': 'true' });
    this.surface = h('div.chart-plot', { tabindex: 0, role: 'group', 'aria-label': `${title}, over time: arrow keys tell each moment` });
    this.legend = h('table.legend', { role: 'table', 'aria-label': title });
    this.empty = h('p.empty.chart-empty', {}, absent);
    this.spoken = h('p.sr', { role: 'status' });
    this.element = h('section.card.chart', { 'aria-label': title }, h('div.chart-head', {}, h('h3', {}, title), this.told), this.surface, this.empty, h('div.legend-room', {}, this.legend), this.spoken);
    this.surface.addEventListener('keydown', (event) => this.#key(event));
    this.surface.addEventListener('blur', () => this.#point(null));
    this.legend.addEventListener('click', (event) => this.#toggle(event.target.closest('button')));
    new ResizeObserver(() => this.#fit()).observe(this.surface);
    charts.add(this);
  }

  // `at`, `step`: the slots. `from`, `until`: the time that is shown. `series`: [{name, mean, low?, high?, colour?, dash?}].
  // `strips`: [{name, severity, mean}], a bar along the bottom where the share is above 0. `marks`: [{at, severity, words}].
  // `spans`: [{from, until, severity, words}].
  show(given) {
    this.#given = given;
    this.#series = given.series.filter((one) => one.mean.some(seen)).map((one, index) => ({ colour: index % COLOURS, dash: 0, ...one }));
    const none = this.#series.length === 0;
    this.empty.hidden = !none;
    this.surface.hidden = none;
    this.legend.parentElement.hidden = none;
    this.told.hidden = none;
    if (none) {
      this.#destroy();
      return;
    }
    this.#drawLegend(null);
    this.#draw();
  }

  // Colours and size anew.
  refresh() {
    this.#shape = '';
    if (this.#series.length) this.#draw();
  }

  #destroy() {
    this.#plot?.destroy();
    this.#plot = null;
    this.#shape = '';
  }

  #data() {
    const { at } = this.#given;
    if (this.stack) return [at, ...stacked(this.#series.map((one) => one.mean))];
    return [at, ...this.#series.flatMap((one) => (this.#banded(one) ? [one.high, one.low, one.mean] : [one.mean]))];
  }

  // Many bands hide each other; the legend has their bounds.
  #banded(one) {
    return Boolean(one.low) && this.#series.length <= MOST_BANDS;
  }

  #draw() {
    const shape = JSON.stringify([this.#series.map((one) => [one.name, one.colour, one.dash, Boolean(one.low)]), [...this.#hidden]]);
    const data = this.#data();
    if (this.#plot && shape === this.#shape) {
      this.#plot.setData(data);
      return;
    }
    if (!this.surface.clientWidth) return;
    this.#destroy();
    this.#shape = shape;
    this.#plot = new uPlot(this.#options(), data, this.surface);
  }

  #fit() {
    const [width, height] = [this.surface.clientWidth, this.surface.clientHeight];
    if (!width || !this.#series.length) return;
    if (!this.#plot) this.#draw();
    else if (this.#plot.width !== width || this.#plot.height !== height) this.#plot.setSize({ width, height });
  }

  #colour(index) {
    const swatch = this.legend.querySelector(`.swatch.c${index}`);
    return swatch ? getComputedStyle(swatch).color : '#888';
  }

  #options() {
    const style = getComputedStyle(this.surface);
    const [ink, line] = [style.color, style.borderTopColor];
    const series = [{}];
    const bands = [];
    this.#series.forEach((one, index) => {
      const colour = this.#colour(one.colour);
      const show = !this.#hidden.has(one.name);
      const common = { show, points: { show: false }, spanGaps: false };
      if (this.stack) {
        series.push({ ...common, stroke: colour, width: 1, fill: index ? undefined : faint(colour, 0.45) });
        if (index) bands.push({ series: [index + 1, index], fill: faint(colour, 0.45) });
        return;
      }
      if (this.#banded(one)) {
        const first = series.length;
        series.push({ ...common, width: 0 }, { ...common, width: 0 });
        bands.push({ series: [first, first + 1], fill: faint(colour, this.#series.length > 1 ? 0.11 : 0.18) });
      }
      series.push({ ...common, stroke: colour, width: 1.6, dash: DASHES[one.dash % DASHES.length], points: { show: false, filter: lonely, size: 4, stroke: colour, fill: colour } });
    });
    // Larger where all text is (base.css).
    const scale = parseFloat(getComputedStyle(document.documentElement).fontSize) / 16;
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: `${12 * scale}px ${style.fontFamily}` };
    return {
      width: this.surface.clientWidth,
      height: this.surface.clientHeight,
      series,
      bands,
      legend: { show: false },
      // Half of the last time's words, which stand at the edge.
      padding: [10, 26 * scale, 0, 0],
      scales: {
        x: { time: true, range: () => [this.#given.from, this.#given.until] },
        y: { range: (_, least, most) => this.#range(least, most) },
      },
      axes: [
        { ...axis, space: 64 * scale, size: 26 * scale, gap: 4, values: (_, splits, __, ___, increment) => timeWords(splits, increment) },
        { ...axis, space: 32 * scale, size: 58 * scale, gap: 6, values: (_, splits) => splits.map((value) => this.format(value)) },
      ],
      cursor: { sync: { key: 'time', filters: { pub: (type) => type === 'mousemove' || type === 'mouseleave' } }, points: { show: false }, y: false, drag: { x: this.chosen !== null, y: false, setScale: false } },
      hooks: {
        drawClear: [(plot) => this.#drawSpans(plot)],
        draw: [(plot) => this.#drawMarks(plot)],
        setCursor: [(plot) => this.#moved(plot)],
        setSelect: [(plot) => this.#select(plot)],
      },
    };
  }

  #range(least, most) {
    if (!seen(least)) return [this.floor ?? 0, (this.floor ?? 0) + this.top];
    if (this.floor !== null) return [this.floor, Math.max(most * 1.06, this.floor + this.top)];
    const room = Math.max((most - least) * 0.1, 1);
    return [Math.floor(least - room), Math.ceil(most + room)];
  }

  // --- what happened -------------------------------------------------------------------------------------------------

  #drawSpans(plot) {
    const { ctx, bbox } = plot;
    const { from, until, spans = [] } = this.#given;
    ctx.save();
    for (const span of spans) {
      if (span.from > until || (span.until ?? until) < from) continue;
      const left = plot.valToPos(Math.max(span.from, from), 'x', true);
      const width = Math.max(plot.valToPos(Math.min(span.until ?? until, until), 'x', true) - left, 2 * devicePixelRatio);
      const colour = colourOf(span.severity);
      ctx.fillStyle = faint(colour, 0.1);
      ctx.fillRect(left, bbox.top, width, bbox.height);
      ctx.fillStyle = colour;
      ctx.fillRect(left, bbox.top, width, 3 * devicePixelRatio);
    }
    ctx.restore();
  }

  #drawMarks(plot) {
    const { ctx, bbox } = plot;
    const { from, until, at, step, marks = [], strips = [] } = this.#given;
    const pixel = devicePixelRatio;
    ctx.save();
    strips.forEach((strip, index) => {
      ctx.fillStyle = colourOf(strip.severity);
      const top = bbox.top + bbox.height - (index + 1) * 6 * pixel;
      strip.mean?.forEach((value, slot) => {
        if (!value) return;
        const left = plot.valToPos(at[slot], 'x', true);
        ctx.fillRect(left, top, Math.max(plot.valToPos(at[slot] + step, 'x', true) - left, pixel), 5 * pixel);
      });
    });
    for (const mark of marks) {
      if (mark.at < from || mark.at > until) continue;
      const x = Math.round(plot.valToPos(mark.at, 'x', true));
      ctx.strokeStyle = colourOf(mark.severity);
      ctx.fillStyle = ctx.strokeStyle;
      ctx.lineWidth = pixel;
      ctx.setLineDash([4 * pixel, 3 * pixel]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      const half = 5 * pixel;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top - half);
      ctx.lineTo(x + half, bbox.top);
      ctx.lineTo(x, bbox.top + half);
      ctx.lineTo(x - half, bbox.top);
      ctx.closePath();
      ctx.fill();
    }
    ctx.restore();
  }

  // What happened at the time under the cursor, in words.
  #happened(plot, left) {
    const { marks = [], spans = [], until } = this.#given;
    const when = plot.posToVal(left, 'x');
    const near = Math.abs(plot.posToVal(left + NEAR, 'x') - when);
    const found = marks.filter((mark) => Math.abs(mark.at - when) <= near);
    return [...spans.filter((span) => span.from - near <= when && (span.until ?? until) + near >= when), ...found];
  }

  // --- the cursor ----------------------------------------------------------------------------------------------------

  #moved(plot) {
    const { idx, left } = plot.cursor;
    const on = seen(idx) && left >= 0;
    this.#drawLegend(on ? idx : null);
    const happened = on ? this.#happened(plot, left) : [];
    replaceChildren(this.told, ...happened.slice(0, 2).map((one) => h('span', {}, icon(one.severity, one.severity, 12), ` ${one.words}`)));
  }

  #select(plot) {
    const { left, width } = plot.select;
    if (width < 8) return;
    const [from, until] = [plot.posToVal(left, 'x'), plot.posToVal(left + width, 'x')];
    plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    this.chosen?.(from, until);
  }

  #point(slot) {
    const plot = this.#plot;
    if (!plot) return;
    const left = slot === null ? -10 : Math.max(1, plot.valToPos(this.#given.at[slot], 'x'));
    plot.setCursor({ left, top: slot === null ? -10 : 10 }, true, true);
  }

  #key(event) {
    const last = (this.#given?.at.length ?? 0) - 1;
    const slot = this.#plot?.cursor.idx ?? null;
    const shown = this.#plot?.cursor.left >= 0 ? slot : null;
    const far = event.shiftKey ? 10 : 1;
    const next = { ArrowLeft: (shown ?? last + 1) - far, ArrowRight: (shown ?? -1) + far, Home: 0, End: last, Escape: null }[event.key];
    if (next === undefined || last < 0) return;
    event.preventDefault();
    const wanted = next === null ? null : Math.max(0, Math.min(last, next));
    this.#point(wanted);
    this.spoken.textContent = wanted === null ? '' : `${clock(this.#given.at[wanted])}: ${this.#series.map((one) => `${one.name} ${this.format(one.mean[wanted])}`).join(', ')}`;
  }

  // --- the legend ----------------------------------------------------------------------------------------------------

  #drawLegend(slot) {
    const { at, strips = [] } = this.#given;
    const title = slot === null ? 'last' : clock(at[slot]);
    const row = (one) => {
      const { low, mean, high, last } = extent(one);
      const value = slot === null ? last : one.mean[slot];
      const swatch = h(`span.swatch.c${one.colour}`, { 'data-dash': one.dash });
      const name = this.stack ? h('span.series', {}, swatch, one.name) : h('button.series', { type: 'button', 'aria-pressed': !this.#hidden.has(one.name) ? 'true' : 'false', 'data-name': one.name }, swatch, one.name);
      const cells = [value, low, mean, high].map((figure) => h('td', {}, seen(figure) ? this.format(figure) : ABSENT));
      return h('tr', { 'data-key': one.name }, h('th', { scope: 'row' }, name), cells);
    };
    const strip = (one) => {
      const part = extent({ mean: one.mean ?? [] }).mean;
      return h('tr', { 'data-key': `strip ${one.name}` }, h('th', { scope: 'row' }, h('span.series', {}, icon(one.severity, part ? one.severity : 'unknown', 12), one.name)), h('td', { colspan: 4 }, part === null ? 'not told' : part === 0 ? 'never in this time' : `${percent(part)} of this time`));
    };
    replaceChildren(
      this.legend,
      h('thead', {}, h('tr', {}, h('td', {}), [title, 'lowest', 'mean', 'highest'].map((words) => h('th', { scope: 'col' }, words)))),
      h('tbody', {}, this.#series.map(row), strips.map(strip)),
    );
  }

  #toggle(button) {
    const name = button?.dataset.name;
    if (name === undefined) return;
    if (!this.#hidden.delete(name)) this.#hidden.add(name);
    this.#drawLegend(null);
    this.#draw();
  }
}

const percent = (part) => (part < 0.001 ? '<0.1 %' : part < 0.0995 ? `${(part * 100).toFixed(1)} %` : `${Math.round(part * 100)} %`);

// Only points that no line would show.
function lonely(plot, index) {
  const column = plot.data[index];
  const found = [];
  column.forEach((value, slot) => {
    if (seen(value) && !seen(column[slot - 1]) && !seen(column[slot + 1])) found.push(slot);
  });
  return found;
}

const faint = (colour, alpha) => colour.replace(/^rgb\((.*)\)$/, (_, parts) => `rgba(${parts}, ${alpha})`);

const probe = h('span', { hidden: true });

// A severity's colour as the canvas takes it.
function colourOf(name) {
  if (!probe.isConnected) document.body.append(probe);
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

// --- a change of the appearance ------------------------------------------------------------------------------------------

const charts = new Set();
const anew = () => charts.forEach((chart) => chart.refresh());
new MutationObserver(anew).observe(document.documentElement, { attributes: true, attributeFilter: ['data-theme'] });
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', anew);
