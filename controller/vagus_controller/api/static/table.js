// A table that sorts, keeps its rows, and builds them only as far as one has scrolled: a thousand nodes cost what can be
// seen of them. A row is built anew only when its item is another object.

import { h, place, replaceChildren } from './dom.js';

const BATCH = 40;

// `columns`: [{title, cell(item) → content, value(item) → what to sort by (null: last), first: 'desc'}]; the first column is
// the row's header. `key(item)`: its name. `below(item)`: content of a second row over the whole width, or null. `none`: said of no items.
export class Table {
  #root;
  #columns;
  #key;
  #below;
  #most = BATCH;
  #items = [];
  #rows = new Map();
  #sort = null;
  #body = [];

  constructor(root, { label, className = '', columns, key, below, none = 'None.' }) {
    this.none = none;
    this.#root = root;
    this.#columns = columns;
    this.#key = key;
    this.#below = below;
    this.head = h('tr', { role: 'row' }, columns.map((column, index) => this.#heading(column, index)));
    this.table = h('table.cards', { role: 'table', 'aria-label': label }, h('thead', { role: 'rowgroup' }, this.head));
    if (className) this.table.classList.add(className);
    this.rest = h('p.empty', { hidden: true });
    root.replaceChildren(this.table, this.rest);
    new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && this.#more(), { rootMargin: '600px' }).observe(this.rest);
  }

  #heading(column, index) {
    if (!column.value) return h('th', { scope: 'col', role: 'columnheader' }, column.title);
    const button = h('button.sort', { type: 'button' }, column.title);
    button.addEventListener('click', () => this.#sortBy(index));
    return h('th', { scope: 'col', role: 'columnheader', 'aria-sort': 'none' }, button);
  }

  #sortBy(index) {
    const first = this.#columns[index].first ?? 'asc';
    const second = first === 'asc' ? 'desc' : 'asc';
    const now = this.#sort?.index === index ? this.#sort.way : null;
    this.#sort = now === second ? null : { index, way: now === null ? first : second };
    [...this.head.children].forEach((cell, at) => {
      if (!cell.hasAttribute('aria-sort')) return;
      const way = this.#sort?.index === at ? this.#sort.way : null;
      cell.setAttribute('aria-sort', way === 'asc' ? 'ascending' : way === 'desc' ? 'descending' : 'none');
    });
    this.#most = BATCH;
    this.show(this.#items);
  }

  #more() {
    this.#most += BATCH;
    this.show(this.#items);
  }

  // Rows say more than their items do: build them anew.
  again() {
    for (const row of this.#rows.values()) row.item = null;
    this.show(this.#items);
  }

  // The items in the order in which they stand while no column is chosen.
  show(items) {
    this.#items = items;
    const shown = this.#sorted().slice(0, this.#most);
    const names = new Set();
    const bodies = shown.map((item) => {
      const name = this.#key(item);
      names.add(name);
      let row = this.#rows.get(name);
      if (!row) {
        row = { item: null, element: h('tbody', { role: 'rowgroup' }) };
        this.#rows.set(name, row);
      }
      if (row.item !== item) {
        row.item = item;
        replaceChildren(row.element, ...this.#build(item));
      }
      return row.element;
    });
    for (const [name, row] of this.#rows) {
      if (names.has(name)) continue;
      row.element.remove();
      this.#rows.delete(name);
    }
    if (bodies.some((body, at) => body !== this.#body[at])) {
      let cursor = this.table.tHead.nextSibling;
      for (const body of bodies) {
        if (body === cursor) cursor = cursor.nextSibling;
        else place(this.table, body, cursor);
      }
      this.#body = bodies;
    }
    const left = items.length - shown.length;
    this.rest.hidden = left === 0 && items.length > 0;
    this.table.hidden = items.length === 0;
    this.rest.textContent = left ? `${left} more` : items.length ? '' : this.none;
  }

  #sorted() {
    if (!this.#sort) return this.#items;
    const { value } = this.#columns[this.#sort.index];
    const sign = this.#sort.way === 'asc' ? 1 : -1;
    return this.#items
      .map((item) => [value(item), item])
      .sort(([a], [b]) => {
        if (a === b) return 0;
        if (a === null || a === undefined) return 1;
        if (b === null || b === undefined) return -1;
        return a < b ? -sign : sign;
      })
      .map(([, item]) => item);
  }

  #build(item) {
    const [first, ...others] = this.#columns;
    const cells = others.map((column) => h('td', { role: 'cell', 'data-label': column.title }, column.cell(item)));
    const below = this.#below?.(item);
    const row = h('tr', { role: 'row', class: below ? 'has-below' : null }, h('th', { scope: 'row', role: 'rowheader' }, first.cell(item)), cells);
    return below ? [row, h('tr.below-row', { role: 'row' }, h('td', { role: 'cell', colspan: this.#columns.length }, below))] : [row];
  }
}
