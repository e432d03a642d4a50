// The top of the page: how the fleet is, in one sentence, and who says so.

import { h, icon } from './dom.js';
import { closed, duration, known, sentence, text } from './format.js';
import { MOODS } from './shell.js';

export function headline(fleet) {
  const severity = known(fleet.severity);
  return [
    icon(severity, severity, 40),
    h('div.headline-words', {}, h(`p.mood.${severity}`, {}, MOODS[severity]), h('h1', {}, closed(fleet.summary))),
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
