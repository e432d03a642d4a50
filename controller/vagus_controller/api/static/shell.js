// What every page has: the top, how the fleet is, whether what is shown is fresh, who is signed in.

import * as api from './api.js';
import { since } from './ages.js';
import { h, icon, redraw, replaceChildren } from './dom.js';
import { closed, known, sentence } from './format.js';
import { begin, drawNow, drawSoon, follow, store, stream } from './store.js';

export const MOODS = {
  __proto__: null,
  ok: 'All well',
  info: 'For information',
  warning: 'Needs attention',
  critical: 'Critical',
  unknown: 'Not known',
};

const MODES = {
  __proto__: null,
  auto: ['automatic', 'vagus moves traffic by itself'],
  recommend: ['recommends only', 'vagus recommends, a person moves traffic'],
};

const place = (id) => document.getElementById(id);

// Why the controller gives no stream, in words; "" when it does.
let refusal = '';

// Whom or what the page is about, by its address.
export function subject() {
  const [, , name] = location.pathname.split('/');
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

// A page: `draw(fleet)` shows it, again after each change. `opened()` per new connection, for what is not in the
// stream. `title(fleet)`: of the document, where the page's name is not enough.
export function page({ draw, opened, title }) {
  follow({
    draw() {
      drawTop();
      drawBanners();
      const { fleet } = store;
      place('waiting').hidden = fleet !== null;
      place('content').hidden = fleet === null;
      if (!fleet) return;
      const name = title?.(fleet) ?? document.body.dataset.title;
      document.title = `${stream.stale ? '(old) ' : ''}${name} · ${fleet.fleet} · vagus`;
      draw(fleet);
    },
    opened() {
      refusal = '';
      opened?.();
    },
    async refused() {
      refusal = await api.refusal();
      drawSoon();
    },
  });
  begin();
  drawNow();
}

function drawTop() {
  const { fleet } = store;
  place('live').textContent = stream.stale ? 'no news' : fleet ? 'live' : 'connecting';
  document.body.classList.toggle('stale', stream.stale);
  if (!fleet) return;
  drawBadges(fleet);
  redraw(place('identity'), [fleet.fleet, fleet.mode, fleet.severity, fleet.summary], () => identity(fleet));
}

function identity(fleet) {
  const severity = known(fleet.severity);
  const [mode, meaning] = MODES[fleet.mode] ?? [fleet.mode, ''];
  return [
    h('span.fleet-name', {}, fleet.fleet),
    h('span.chip', { title: meaning }, mode),
    document.body.dataset.page !== 'fleet' && h(`a.pulse.${severity}`, { href: '/', title: fleet.summary }, icon(severity, severity, 14), MOODS[severity]),
  ];
}

function drawBanners() {
  const { fleet } = store;
  const banners = [];
  if (refusal) banners.push(banner('refused', 'critical', 'The controller gives this page no news.', closed(refusal)));
  else if (stream.stale) {
    const lost = ['This page lost the controller', aside(since(stream.silence, performance.now(), 'ago')), fleet ? ': what you see is old.' : '.'];
    banners.push(banner('stale', 'warning', lost, 'Reconnecting by itself. Agents and controller go on without this page.'));
  } else if (fleet?.observer.state === 'blind') {
    const { observer } = fleet;
    const lost = fleet.broker
      ? 'The controller doubts itself, and moves nothing.'
      : ['The controller lost the broker', aside(since(observer.since_s, fleet.heard, 'ago')), ' and moves nothing.'];
    const words = `${closed(sentence(observer.reason))} What you see of the nodes is from before; they save their own links by their rules.`;
    banners.push(banner('blind', 'critical', lost, words));
  } else if (fleet && !fleet.leads) {
    banners.push(banner('standby', 'info', 'This controller stands by, and decides nothing:', `${closed(fleet.standing)} What is decided, and commands, are on the page of the one that leads.`));
  }
  document.body.classList.toggle('blind', fleet?.observer.state === 'blind');
  replaceChildren(place('banners'), ...banners);
}

// Not read aloud again every second: it is hidden from screen readers, the words around it are not.
const aside = (element) => h('span', { 'aria-hidden': 'true' }, ' ', element);

function banner(key, severity, strong, words) {
  return h(
    `div.banner.${severity}`,
    { 'data-key': key, role: 'alert' },
    h('p.wide', {}, icon(severity, severity, 18), h('span', {}, h('strong', {}, strong), ' ', words)),
  );
}

function drawBadges(fleet) {
  const open = place('badge-incidents');
  const urgent = fleet.incidents.some((one) => one.severity === 'critical');
  open.hidden = fleet.incidents.length === 0;
  open.textContent = fleet.incidents.length;
  open.classList.toggle('warning', !urgent);
  open.title = `${fleet.incidents.length} open`;
  const asked = fleet.pairs.filter((pair) => pair.status === 'recommended').length;
  const badge = place('badge-failover');
  badge.hidden = asked === 0;
  badge.textContent = asked;
  badge.title = `${asked} ${asked === 1 ? 'move waits' : 'moves wait'} for approval`;
}

for (const link of document.querySelectorAll('[data-nav]')) {
  if (link.dataset.nav === document.body.dataset.page) link.setAttribute('aria-current', 'page');
}

// Who looks; a viewer is shown no command ([data-command], see parts.css). The server decides in any case.
async function drawMe() {
  try {
    const me = await api.me();
    document.body.dataset.role = me.role;
    place('me').textContent = `${me.name}, ${me.role}`;
  } catch {
    // The banners say what is wrong with the controller.
  }
}
drawMe();

// --- the menu ----------------------------------------------------------------------------------------------------------

const menu = document.querySelector('details.menu');
document.addEventListener('click', (event) => {
  if (!menu.contains(event.target)) menu.open = false;
});
menu.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || !menu.open) return;
  menu.open = false;
  menu.querySelector('summary').focus();
});

const themes = [...document.querySelectorAll('#theme input')];
for (const input of themes) {
  input.checked = input.value === (document.documentElement.dataset.theme ?? 'auto');
  input.addEventListener('change', () => {
    if (input.value === 'auto') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = input.value;
    try {
      localStorage.setItem('vagus-theme', input.value);
    } catch {
      // No storage here: until the next page.
    }
  });
}

// --- ages, and a stream that fell silent ---------------------------------------------------------------------------------

let wasStale = false;
setInterval(() => {
  stream.watch();
  if (stream.stale !== wasStale) drawNow();
  wasStale = stream.stale;
}, 1000);
