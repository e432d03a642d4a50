// Incidents: those that are open, and those that were, back as far as the store goes.

import * as api from './api.js';
import { replaceChildren } from './dom.js';
import { rank } from './format.js';
import { merged } from './history.js';
import { incidentList } from './incidentlines.js';
import { page } from './shell.js';
import { drawSoon, listen } from './store.js';

const PAGE = 30;

const place = (id) => document.getElementById(id);
const subject = place('subject');

let all = [];
let heard = performance.now();
// whether the store has older ones
let more = false;
let trouble = '';
let asked = 0;

// Those that are open and the newest that were; or, before the id `before`, older ones.
async function load(before) {
  asked += 1;
  const mine = asked;
  const words = { subject: subject.value.trim() };
  try {
    const [open, found] = await Promise.all([before ? [] : api.incidents({ ...words, show: 'open', limit: 500 }), api.incidents({ ...words, show: 'all', limit: PAGE, before })]);
    if (mine !== asked) return;
    if (!before) {
      all = [];
      heard = performance.now();
    }
    all = merged(all, [...found, ...open]);
    more = found.length === PAGE;
    trouble = '';
  } catch (error) {
    trouble = error.message;
  }
  drawSoon();
}

listen('incident', () => load());

function search() {
  const wanted = subject.value.trim();
  history.replaceState(null, '', wanted ? `?${new URLSearchParams({ subject: wanted })}` : location.pathname);
  load();
}

subject.value = new URLSearchParams(location.search).get('subject') ?? '';
place('search').addEventListener('submit', (event) => {
  event.preventDefault();
  search();
});
subject.addEventListener('search', search);
place('older').addEventListener('click', () => load(all.at(-1)?.id));

function draw(fleet) {
  const options = place('subjects');
  if (options.children.length !== fleet.nodes.length) options.replaceChildren(...fleet.nodes.map((node) => new Option(node.name)));
  place('trouble').textContent = trouble;
  place('trouble').hidden = trouble === '';
  const about = subject.value.trim() && ` about ${subject.value.trim()}`;
  const open = all.filter((one) => one.state === 'open').sort((a, b) => rank(b.severity) - rank(a.severity) || b.id - a.id);
  replaceChildren(place('open'), incidentList(open, `No incident is open${about}.`, heard));
  replaceChildren(place('past'), incidentList(all.filter((one) => one.state !== 'open'), `No incident is past${about}.`, heard));
  place('older').hidden = !more;
}

page({ draw, opened: () => load() });
