// The top of the page: how the fleet is, in one sentence, and who says so.

import { h, icon } from './dom.js';
import { closed, duration, known, sentence, text } from './format.js';

const WORDS = {
  ok: 'All well',
  info: 'For information',
  warning: 'Needs attention',
  critical: 'Critical',
  unknown: 'Not known',
};

export function headline(fleet) {
  const severity = known(fleet.severity);
  return [
    icon(severity, severity, 40),
    h('div.headline-words', {}, h(`p.mood.${severity}`, {}, WORDS[severity]), h('h1', {}, closed(fleet.summary))),
  ];
}

export function observer(fleet, elapsed) {
  const { observer: seen } = fleet;
  const severity = known(seen.severity);
  return [
    icon(severity, severity, 16),
    h(
      'p',
      {},
      h('strong', {}, `Observer ${fleet.controller}: ${seen.state}. `),
      closed(sentence(seen.reason)),
      ' ',
      h('span.muted', {}, `Broker ${text(fleet.broker)}, up ${duration(fleet.uptime_s + elapsed)}, epoch ${fleet.epoch}.`),
    ),
  ];
}

const MODES = {
  __proto__: null,
  auto: ['automatic', 'vagus moves traffic by itself'],
  recommend: ['recommends only', 'vagus recommends, a person moves traffic'],
};

export function identity(fleet) {
  const [mode, meaning] = MODES[fleet.mode] ?? [fleet.mode, ''];
  return [h('span.fleet-name', {}, fleet.fleet), h('span.chip', { title: meaning }, mode)];
}

export function title(fleet, stale) {
  const mark = stale ? '(old) ' : known(fleet.severity) === 'ok' ? '' : `${WORDS[known(fleet.severity)]}: `;
  return `${mark}${fleet.fleet} · vagus`;
}
