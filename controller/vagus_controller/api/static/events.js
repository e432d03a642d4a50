// What happened, and what was decided: live, and back as far as the store goes.

import * as api from './api.js';
import { replaceChildren } from './dom.js';
import { eventsList, ledgerList, merged } from './history.js';
import { page } from './shell.js';
import { drawNow, drawSoon, listen } from './store.js';

const PAGE = 50;

const place = (id) => document.getElementById(id);
const subject = place('subject');

class Column {
  entries = [];
  // whether the store has older ones
  more = false;
  trouble = '';
  // of the newest request: an older one's answer is of no use
  #asked = 0;

  constructor(id, read, list) {
    this.id = id;
    this.read = read;
    this.list = list;
    place(`${id}-older`).addEventListener('click', () => this.load(this.entries.at(-1)?.id));
  }

  // The newest entries, or those before the id `before`.
  async load(before) {
    this.#asked += 1;
    const asked = this.#asked;
    try {
      const found = await this.read({ limit: PAGE, before, subject: subject.value.trim() });
      if (asked !== this.#asked) return;
      this.entries = merged(this.entries, found);
      if (before !== undefined || this.entries.length <= PAGE) this.more = found.length === PAGE;
      this.trouble = '';
    } catch (error) {
      this.trouble = error.message;
    }
    drawSoon();
  }

  draw() {
    const trouble = place(`${this.id}-trouble`);
    trouble.textContent = this.trouble;
    trouble.hidden = this.trouble === '';
    replaceChildren(place(this.id), this.list(this.entries));
    place(`${this.id}-older`).hidden = !this.more;
  }
}

const columns = [new Column('events', api.events, eventsList), new Column('ledger', api.ledger, ledgerList)];

// As the API has it: a node with its pairs, or a pair with its paths.
function concerns(entry) {
  const wanted = subject.value.trim();
  const [name] = entry.subject.split('/');
  return wanted === '' || entry.subject === wanted || name === wanted || name.split('--').includes(wanted);
}

['event', 'ledger'].forEach((topic, index) =>
  listen(topic, (entry) => {
    if (concerns(entry)) columns[index].entries = merged(columns[index].entries, [entry]);
  }),
);

function search() {
  const wanted = subject.value.trim();
  history.replaceState(null, '', wanted ? `?${new URLSearchParams({ subject: wanted })}` : location.pathname);
  for (const column of columns) {
    column.entries = [];
    column.load();
  }
}

subject.value = new URLSearchParams(location.search).get('subject') ?? '';
place('search').addEventListener('submit', (event) => {
  event.preventDefault();
  search();
});
subject.addEventListener('search', search);

function draw(fleet) {
  const names = [...fleet.nodes.map((node) => node.name), ...fleet.pairs.slice(0, 500).map((pair) => pair.name)];
  const options = place('subjects');
  if (options.children.length !== names.length) options.replaceChildren(...names.map((name) => new Option(name)));
  for (const column of columns) column.draw();
}

for (const input of document.querySelectorAll('input[name="show"]')) {
  input.addEventListener('change', () => {
    place('columns').dataset.show = input.value;
    drawNow();
  });
}

page({ draw, opened: () => columns.forEach((column) => column.load()) });
