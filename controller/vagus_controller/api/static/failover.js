// The failover console: what is assigned, what waits for a person, plans and drills as they go, and what may be asked for.

import { since } from './ages.js';
import * as api from './api.js';
import { ask } from './dialog.js';
import { h, icon, replaceChildren } from './dom.js';
import { closed, plural, sentence, text } from './format.js';
import { ledgerList, merged } from './history.js';
import { moveButtons, onMoveClick } from './moves.js';
import { matches, moved, pairUrl, standing } from './pairs.js';
import { onPauseClick, pauseMeans, pausesBody } from './pauses.js';
import { isBusy, progressBody, rehearsal } from './plans.js';
import { page } from './shell.js';
import { drawSoon, listen, store } from './store.js';
import { Table } from './table.js';
import { toast } from './toast.js';

const LATEST = 20;
// While something is under way, its stages are asked for this often.
const WATCH_MS = 1000;

const place = (id) => document.getElementById(id);
const joined = (pair) => pair.nodes.join(' ⇄ ');

let plans = [];
let drills = [];
let ledger = [];
let trouble = '';

async function load() {
  const heard = performance.now();
  try {
    [plans, drills] = await Promise.all([api.plans(), api.drills()]);
    for (const one of [...plans, ...drills]) one.heard = heard;
    trouble = '';
  } catch (error) {
    trouble = error.message;
  }
  drawSoon();
}

async function loadLedger() {
  try {
    ledger = merged(ledger, await api.ledger({ limit: LATEST }), LATEST);
  } catch (error) {
    trouble = error.message;
  }
  drawSoon();
}

listen('ledger', (entry) => {
  ledger = merged(ledger, [entry], LATEST);
  load();
});

setInterval(() => {
  const moving = store.fleet?.pairs.some((pair) => pair.status === 'moving');
  if (!document.hidden && (moving || isBusy(plans, drills))) load();
}, WATCH_MS);

const MODES = {
  __proto__: null,
  auto: 'Automatic: vagus moves pairs by its own rules, and says why. A person may take over any pair.',
  recommend: 'Recommends only: vagus moves nothing by itself; each move waits for a person.',
};

const assignments = new Table(place('assignments'), {
  label: 'Assignments',
  columns: [
    { title: 'Pair', value: (pair) => pair.name, cell: (pair) => h('a.pair-name', { href: pairUrl(pair) }, joined(pair)) },
    {
      title: 'State',
      value: (pair) => standing(pair)[2],
      cell: (pair) => {
        const [shape, severity, words] = standing(pair);
        return h('span.status-line', {}, icon(shape, severity, 14), words);
      },
    },
    { title: 'Assigned', value: (pair) => pair.assigned, cell: (pair) => text(pair.assigned) },
    { title: 'Kernels use', cell: (pair) => [...new Set(pair.observed)].map((path) => path || 'none of ours').join(' / ') },
    { title: 'By', value: (pair) => pair.origin, cell: (pair) => ORIGINS[pair.origin] ?? pair.origin },
    { title: 'Since', value: (pair) => pair.since_s, cell: (pair) => since(pair.since_s, pair.heard, 'ago') },
    { title: 'Do', cell: (pair) => h('div.actions', { 'data-command': true }, moveButtons(pair)) },
  ],
  key: (pair) => pair.name,
  below: (pair) => (pair.status === 'settled' && pair.origin === 'default' ? null : h('p.muted', {}, closed(sentence(pair.reason)))),
});

const ORIGINS = { __proto__: null, default: 'configuration', auto: 'vagus', operator: 'a person', reflex: 'the agents' };

const restless = (pair) => moved(pair) || pair.status !== 'settled';

function draw(fleet) {
  place('trouble').textContent = trouble;
  place('trouble').hidden = trouble === '';
  place('mode').textContent = MODES[fleet.mode] ?? fleet.mode;
  const asked = fleet.pairs.filter((pair) => pair.status === 'recommended');
  place('waiting-for-you').hidden = asked.length === 0;
  replaceChildren(place('asked'), h('ul.asked', {}, asked.map(askedLine)));
  replaceChildren(place('progress'), ...progressBody(plans, drills));
  const every = place('all').checked || place('filter').value !== '';
  const shown = fleet.pairs.filter((pair) => (every || restless(pair)) && matches(place('filter').value, ...pair.nodes));
  const away = fleet.pairs.filter(restless).length;
  place('at-home').textContent = away ? `${plural(fleet.pairs.length - away, 'pair')} at home, ${away} not.` : `All ${plural(fleet.pairs.length, 'pair')} at home on their first path.`;
  assignments.show(shown);
  place('assignments').hidden = shown.length === 0;
  replaceChildren(place('pauses'), ...pausesBody(fleet));
  replaceChildren(place('ledger'), ledgerList(ledger));
  for (const form of forms) drawTargets(form, fleet);
  drawPaths(fleet);
}

function askedLine(pair) {
  return h(
    'li',
    { 'data-key': pair.name },
    icon('warning', 'warning', 18),
    h('div', {}, h('p', {}, h('a.pair-name', { href: pairUrl(pair) }, joined(pair))), h('p', {}, closed(sentence(pair.reason))), h('p.muted', {}, 'Asked ', since(pair.since_s, pair.heard, 'ago'))),
    h('div.actions', { 'data-command': true }, moveButtons(pair)),
  );
}

// --- forms -------------------------------------------------------------------------------------------------------------

const forms = ['move', 'drill', 'pause'].map(place);

// `first`: which one is chosen at first.
function choices(select, options, first = 0) {
  const now = [...select.options].map((option) => option.value).join('\n');
  if (options.map(([value]) => value).join('\n') === now) return;
  select.replaceChildren(...options.map(([value, words]) => new Option(words, value)));
  select.selectedIndex = Math.min(first, options.length - 1);
}

function drawTargets(form, fleet) {
  const scope = form.elements.scope.value;
  const names = {
    fleet: () => [],
    site: () => [...new Set(fleet.nodes.map((node) => node.site).filter(Boolean))].sort(),
    node: () => fleet.nodes.map((node) => node.name),
    pair: () => fleet.pairs.map((pair) => pair.name),
  }[scope]();
  choices(form.elements.target, names.map((name) => [name, name.replace('--', ' ⇄ ')]));
  form.querySelector('[data-target]').hidden = scope === 'fleet';
}

function drawPaths(fleet) {
  const paths = [...new Set(fleet.pairs.flatMap((pair) => pair.paths.map((path) => path.path)))];
  choices(place('move').elements.path, [...paths.map((path) => [path, path]), ['', 'home, each to its first path']], 1);
}

const where = ({ scope, target }) => (scope === 'fleet' ? 'the whole fleet' : `${scope} ${target}`);

function asked(form) {
  const { scope, target } = form.elements;
  return { scope: scope.value, target: scope.value === 'fleet' ? '' : target.value };
}

function complain(form, words) {
  const line = form.querySelector('.trouble');
  line.textContent = words;
  line.hidden = words === '';
}

place('move').addEventListener('submit', async (event) => {
  event.preventDefault();
  const form = event.target;
  const { path, reason, force } = form.elements;
  const wanted = { ...asked(form), path: path.value, reason: reason.value.trim(), force: force.checked };
  complain(form, '');
  try {
    const plan = await api.plan({ ...wanted, dry_run: true });
    replaceChildren(place('rehearsal'), ...rehearsal(plan, wanted));
    place('rehearsal').querySelector('[data-action="carry-out"]')?.addEventListener('click', () => carryOut(plan, wanted));
    place('rehearsal').querySelector('[data-action="forget"]')?.addEventListener('click', forget);
  } catch (error) {
    forget();
    complain(form, error.message);
  }
});

const forget = () => place('rehearsal').replaceChildren();

function carryOut(plan, wanted) {
  const count = plan.stages.reduce((sum, stage) => sum + stage.steps.length, 0);
  ask({
    title: sentence(plan.what),
    consequence: [
      `Traffic of ${plural(count, 'pair')} moves in ${plural(plan.stages.length, 'stage')}. Each pair is verified by both ends with real packets, and goes back if that fails; open connections stay open.`,
      wanted.path ? 'vagus holds these pairs there until a person fails them back.' : 'From then on vagus moves these pairs by its own rules again.',
      ...(wanted.force ? ['Also where the path is not proven: traffic may be lost.'] : []),
    ],
    warn: wanted.force,
    confirm: wanted.path ? `Move ${plural(count, 'pair')} to ${wanted.path}` : `Move ${plural(count, 'pair')} home`,
    async act() {
      await api.plan({ ...wanted, dry_run: false });
      forget();
      load();
      toast('The plan has begun.');
    },
  });
}

place('drill').addEventListener('submit', (event) => {
  event.preventDefault();
  const { scope, target } = asked(event.target);
  const reason = event.target.elements.reason.value.trim();
  ask({
    title: `Drill ${scope === 'pair' ? target.replace('--', ' ⇄ ') : where({ scope, target })}`,
    consequence: [
      'One pair at a time: its traffic goes out to the standby for about 5 s, is watched by both ends, and comes back. The gap that it sees is measured.',
      'The first bad sign ends the drill, and nothing of it stays. It begins only while all is well.',
    ],
    confirm: 'Begin the drill',
    async act() {
      await api.drill(scope, target, reason || 'asked for on the page');
      load();
      toast('The drill has begun.');
    },
  });
});

place('pause').addEventListener('submit', (event) => {
  event.preventDefault();
  const form = event.target;
  const wanted = asked(form);
  const { reason, seconds } = form.elements;
  const lasts = seconds.selectedOptions[0].textContent;
  ask({
    title: `Pause ${where(wanted)}`,
    consequence: [`For ${lasts}, ${pauseMeans(where(wanted))}`],
    warn: true,
    confirm: `Pause for ${lasts}`,
    async act() {
      await api.pause(wanted.scope, wanted.target, reason.value.trim(), Number(seconds.value));
      reason.value = '';
      toast(`${sentence(where(wanted))} is paused for ${lasts}.`);
    },
  });
});

for (const form of forms) form.addEventListener('change', () => store.fleet && drawTargets(form, store.fleet));
for (const id of ['filter', 'all']) place(id).addEventListener('input', drawSoon);
document.addEventListener('click', onMoveClick);
document.addEventListener('click', onPauseClick);

page({
  draw,
  opened() {
    load();
    loadLedger();
  },
});
