// The fleet page: how the fleet is, its links, quorum and nodes, and what vagus did last.

import * as api from './api.js';
import { ask } from './dialog.js';
import { replaceChildren } from './dom.js';
import { ledgerList, merged } from './history.js';
import { linksBody, MANY_PAIRS } from './links.js';
import { MANY_NODES, nodesBody } from './nodes.js';
import { headline, observer } from './overview.js';
import { askMove } from './moves.js';
import { pausesBody } from './pauses.js';
import { quorumCard } from './quorum.js';
import { MOODS, page } from './shell.js';
import { drawNow, drawSoon, elapsed, listen, store } from './store.js';

const LATEST = 8;

const ui = { open: new Set(), filter: '', sites: null, all: false };
let ledger = [];

const place = (id) => document.getElementById(id);
const show = (id, visible) => {
  place(id).hidden = !visible;
};

function say(id, words) {
  if (place(id).textContent !== words) place(id).textContent = words;
  show(id, words !== '');
}

async function loadHistory() {
  try {
    ledger = merged(ledger, await api.ledger({ limit: LATEST }), LATEST);
    say('history-trouble', '');
  } catch (error) {
    say('history-trouble', error.message);
  }
  drawSoon();
}

listen('ledger', (entry) => {
  ledger = merged(ledger, [entry], LATEST);
});

function draw(fleet) {
  const past = elapsed(fleet);
  const many = fleet.pairs.length > MANY_PAIRS || fleet.nodes.length > MANY_NODES;
  show('tools', many);
  show('only-attention', fleet.pairs.length > MANY_PAIRS);
  replaceChildren(place('headline'), ...headline(fleet));
  replaceChildren(place('observer'), ...observer(fleet, past));
  replaceChildren(place('quorum'), ...quorumCard(fleet, past));
  replaceChildren(place('links'), ...linksBody(fleet, past, ui));
  place('nodes').classList.toggle('many', fleet.nodes.length > MANY_NODES);
  replaceChildren(place('nodes'), ...nodesBody(fleet, past, ui));
  replaceChildren(place('pauses'), ...pausesBody(fleet, past));
  replaceChildren(place('ledger'), ledgerList(ledger));
  drawTargets(fleet);
}

// The choices of the pause form, for the scope that is chosen.
function drawTargets(fleet) {
  const form = place('pause-form');
  const scope = form.elements.scope.value;
  const sites = [...new Set(fleet.nodes.map((node) => node.site).filter(Boolean))].sort();
  const names = scope === 'site' ? sites : scope === 'node' ? fleet.nodes.map((node) => node.name) : [];
  const select = form.elements.target;
  if (names.join('\n') !== [...select.options].map((option) => option.value).join('\n')) {
    select.replaceChildren(...names.map((name) => new Option(name, name)));
  }
  show('pause-target', scope !== 'fleet');
}

const actions = {
  switchover: ({ pair, path }) => askMove(pair, path),
  failback: ({ pair, path }) => askMove(pair, path),
  sites({ a, b }) {
    ui.sites = ui.sites && ui.sites[0] === a && ui.sites[1] === b ? null : [a, b];
  },
  resume({ id }) {
    const pause = store.fleet.pauses.find((one) => one.id === Number(id));
    ask({
      title: 'Resume',
      consequence: [`vagus acts again on ${pause?.target || 'the whole fleet'} at once: traffic may move within seconds.`],
      confirm: 'Resume',
      act: () => api.resume(Number(id)),
    });
  },
};

document.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-action]');
  if (!button) return;
  actions[button.dataset.action]?.(button.dataset);
  drawNow();
});

// A pair's details are built when it is opened.
document.addEventListener(
  'toggle',
  (event) => {
    const name = event.target.dataset?.pair;
    if (name === undefined || !event.target.isConnected) return;
    if (event.target.open) ui.open.add(name);
    else ui.open.delete(name);
    drawSoon();
  },
  true,
);

place('filter').addEventListener('input', (event) => {
  ui.filter = event.target.value;
  drawSoon();
});

place('all-pairs').addEventListener('change', (event) => {
  ui.all = event.target.checked;
  drawSoon();
});

place('pause-form').addEventListener('change', () => store.fleet && drawTargets(store.fleet));

place('pause-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const { scope, target, reason, hours } = event.target.elements;
  try {
    await api.pause(scope.value, scope.value === 'fleet' ? '' : target.value, reason.value.trim(), Number(hours.value) * 3600);
    reason.value = '';
    say('pause-trouble', '');
  } catch (error) {
    say('pause-trouble', error.message);
  }
});

// Ages grow also when nothing arrives.
setInterval(drawSoon, 1000);

page({ draw, opened: loadHistory, title: (fleet) => (fleet.severity === 'ok' ? 'Fleet' : MOODS[fleet.severity] ?? 'Not known') });
