// The page's wiring: the stream fills `state`, `draw` shows it, clicks become requests.

import * as api from './api.js';
import { ask } from './dialog.js';
import { replaceChildren } from './dom.js';
import { age } from './format.js';
import { eventsBody, ledgerBody, merged, pausesBody } from './history.js';
import { home, linksBody, MANY_PAIRS } from './links.js';
import { MANY_NODES, nodesBody } from './nodes.js';
import { headline, identity, observer, title } from './overview.js';
import { quorumCard } from './quorum.js';
import { Stream } from './stream.js';

const HISTORY_AT_START = 50;
// Pictures that arrive faster than this are not all drawn.
const DRAW_EVERY_MS = 250;

const state = {
  fleet: null,
  fleetAt: 0,
  // The newest picture as it came: read only when it is drawn.
  unread: null,
  events: [],
  ledger: [],
  ui: { open: new Set(), filter: '', sites: null, all: false },
};

const place = (id) => document.getElementById(id);
const show = (id, visible) => {
  place(id).hidden = !visible;
};

const stream = new Stream('/api/v1/stream', {
  heard(topic, data) {
    if (topic === 'fleet') {
      state.unread = data;
      state.fleetAt = performance.now();
    } else if (topic === 'event' || topic === 'ledger') {
      const entries = topic === 'event' ? 'events' : 'ledger';
      state[entries] = merged(state[entries], [JSON.parse(data)]);
    }
    drawSoon();
  },
  opened: loadHistory,
  refused: api.signedIn,
});

async function loadHistory() {
  try {
    const [events, ledger] = await Promise.all([api.events(HISTORY_AT_START), api.ledger(HISTORY_AT_START)]);
    state.events = merged(state.events, events);
    state.ledger = merged(state.ledger, ledger);
    say('history-trouble', '');
    drawSoon();
  } catch (error) {
    say('history-trouble', error.message);
  }
}

function say(id, words) {
  if (place(id).textContent !== words) place(id).textContent = words;
  show(id, words !== '');
}

let drawing = 0;
let drawnAt = 0;

function drawSoon() {
  if (drawing || document.hidden) return;
  drawing = setTimeout(() => {
    drawing = 0;
    draw();
  }, Math.max(0, drawnAt + DRAW_EVERY_MS - performance.now()));
}

function draw() {
  drawnAt = performance.now();
  if (state.unread !== null) {
    state.fleet = JSON.parse(state.unread);
    state.unread = null;
  }
  drawStale();
  replaceChildren(place('events'), ...eventsBody(state.events));
  replaceChildren(place('ledger'), ...ledgerBody(state.ledger));
  const { fleet } = state;
  if (!fleet) return;
  const elapsed = (performance.now() - state.fleetAt) / 1000;
  const many = fleet.pairs.length > MANY_PAIRS || fleet.nodes.length > MANY_NODES;
  document.title = title(fleet, stream.stale);
  show('waiting', false);
  show('content', true);
  show('tools', many);
  show('only-attention', fleet.pairs.length > MANY_PAIRS);
  replaceChildren(place('identity'), ...identity(fleet));
  replaceChildren(place('headline'), ...headline(fleet));
  replaceChildren(place('observer'), ...observer(fleet, elapsed));
  replaceChildren(place('quorum'), ...quorumCard(fleet, elapsed));
  replaceChildren(place('links'), ...linksBody(fleet, elapsed, state.ui));
  place('nodes').classList.toggle('many', fleet.nodes.length > MANY_NODES);
  replaceChildren(place('nodes'), ...nodesBody(fleet, elapsed, state.ui));
  replaceChildren(place('pauses'), ...pausesBody(fleet, elapsed));
  drawTargets(fleet);
}

function drawStale() {
  const { stale, silence } = stream;
  document.body.classList.toggle('stale', stale);
  show('stale', stale);
  // Not read aloud again every second: it is hidden from screen readers, the alert around it is not.
  if (stale) place('silence').textContent = ` for ${age(silence)}`;
  place('live').textContent = stale ? 'no news' : state.fleet ? 'live' : 'connecting';
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
    const { ui } = state;
    ui.sites = ui.sites && ui.sites[0] === a && ui.sites[1] === b ? null : [a, b];
  },
  resume({ id }) {
    const pause = state.fleet.pauses.find((one) => one.id === Number(id));
    ask({
      title: 'Resume',
      consequence: [`vagus acts again on ${pause?.target || 'the whole fleet'} at once: traffic may move within seconds.`],
      confirm: 'Resume',
      act: () => api.resume(Number(id)),
    });
  },
};

function askMove(name, to) {
  const pair = state.fleet?.pairs.find((one) => one.name === name);
  if (!pair) return;
  const [a, b] = pair.nodes;
  const back = to === home(pair);
  const target = pair.paths.find((path) => path.path === to);
  const consequence = [
    `Traffic between ${a} and ${b} leaves ${pair.assigned} and takes ${to}, in both directions, within about a second. Open connections stay open.`,
    back
      ? `From then on vagus moves this pair by its own rules again.`
      : `vagus holds the pair on ${to} until a person fails it back to ${home(pair)}.`,
  ];
  if (target && !target.proven) consequence.push(`${to} is not proven, because ${target.unproven || 'no reason was given'}. Traffic may be lost.`);
  ask({
    title: back ? `Fail back ${a} and ${b} to ${to}` : `Switch over ${a} and ${b} to ${to}`,
    consequence,
    warn: target && !target.proven,
    reason: true,
    force: !back && target && !target.proven ? `Switch over although ${to} is not proven` : '',
    confirm: back ? 'Fail back' : 'Switch over',
    act: ({ reason, force }) => (back ? api.failback(name, reason) : api.switchover(name, to, reason, force)),
  });
}

document.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-action]');
  if (!button) return;
  actions[button.dataset.action]?.(button.dataset);
  draw();
});

// A pair's details are built when it is opened.
document.addEventListener(
  'toggle',
  (event) => {
    const name = event.target.dataset?.pair;
    if (name === undefined || !event.target.isConnected) return;
    if (event.target.open) state.ui.open.add(name);
    else state.ui.open.delete(name);
    drawSoon();
  },
  true,
);

place('filter').addEventListener('input', (event) => {
  state.ui.filter = event.target.value;
  drawSoon();
});

place('all-pairs').addEventListener('change', (event) => {
  state.ui.all = event.target.checked;
  drawSoon();
});

place('pause-form').addEventListener('change', () => state.fleet && drawTargets(state.fleet));

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

document.addEventListener('visibilitychange', drawSoon);
// Ages grow also when nothing arrives.
setInterval(() => {
  stream.watch();
  drawSoon();
}, 1000);

draw();
stream.open();
