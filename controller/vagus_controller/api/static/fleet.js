// The fleet page: how the fleet is and what to do, its links, quorum and nodes, and what vagus did last.

import * as api from './api.js';
import { redraw, replaceChildren } from './dom.js';
import { aboutFleet, ledgerList, merged } from './history.js';
import { drawLinks, MANY_PAIRS } from './links.js';
import { Nodes } from './nodes.js';
import { drawHeadline, drawVitals, incidentsBody } from './overview.js';
import { onPauseClick, pausesBody } from './pauses.js';
import { drawQuorum } from './quorum.js';
import { MOODS, page } from './shell.js';
import { drawNow, drawSoon, listen } from './store.js';

const LATEST = 8;
// From so many nodes on there is something to filter.
const TOOLS_FROM = 8;

const ui = { filter: '', sites: null, all: false };
let ledger = [];

const place = (id) => document.getElementById(id);
const nodes = new Nodes(place('nodes'));

function load() {
  loadHistory();
  loadSparks();
}

async function loadHistory() {
  const trouble = place('history-trouble');
  try {
    ledger = merged(ledger, (await api.ledger({ limit: 6 * LATEST })).filter(aboutFleet), LATEST);
    trouble.textContent = '';
  } catch (error) {
    trouble.textContent = error.message;
  }
  trouble.hidden = trouble.textContent === '';
  drawSoon();
}

// A minute's mean is all that they get in a minute.
const SPARKS_EVERY_MS = 60_000;

async function loadSparks() {
  try {
    nodes.lines((await api.sparklines()).nodes);
  } catch {
    // The table does without: the banners say what is wrong with the controller.
  }
}

setInterval(() => !document.hidden && loadSparks(), SPARKS_EVERY_MS);

listen('ledger', (entry) => {
  if (aboutFleet(entry)) ledger = merged(ledger, [entry], LATEST);
});

function draw(fleet) {
  place('tools').hidden = fleet.nodes.length < TOOLS_FROM;
  place('only-attention').hidden = fleet.pairs.length <= MANY_PAIRS;
  drawHeadline(place('headline'), fleet);
  drawVitals(place('vitals'), fleet, ledger);
  place('incidents-card').hidden = fleet.incidents.length === 0;
  replaceChildren(place('incidents'), ...incidentsBody(fleet));
  drawQuorum(place('quorum'), fleet);
  drawLinks(place, fleet, ui);
  replaceChildren(place('pauses'), ...pausesBody(fleet));
  redraw(place('ledger'), [ledger], () => [ledgerList(ledger)]);
  nodes.draw(fleet, ui.filter);
}

const actions = {
  sites({ a, b }) {
    ui.sites = ui.sites && ui.sites[0] === a && ui.sites[1] === b ? null : [a, b];
  },
};

document.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-action]');
  if (!button) return;
  actions[button.dataset.action]?.(button.dataset);
  drawNow();
});

document.addEventListener('click', onPauseClick);

place('filter').addEventListener('input', (event) => {
  ui.filter = event.target.value;
  drawSoon();
});

place('all-pairs').addEventListener('change', (event) => {
  ui.all = event.target.checked;
  drawSoon();
});

page({ draw, opened: load, title: (fleet) => (fleet.severity === 'ok' ? 'Fleet' : MOODS[fleet.severity] ?? 'Not known') });
