// Durations that grow by themselves, once a second, without anything being drawn anew.

import { h } from './dom.js';
import { ABSENT, age, ago, duration } from './format.js';
import { follow } from './store.js';

const FORMS = { __proto__: null, duration, age, ago };

// An element that says how long ago something began: `seconds` when its part was `heard` (see store.js), and growing.
// `form`: duration ("3 min"), age ("now", "4 s"), ago ("4 s ago").
export function since(seconds, heard, form = 'duration') {
  if (seconds === null || seconds === undefined) return ABSENT;
  const began = heard - seconds * 1000;
  return h('span', { 'data-since': Math.round(began), 'data-form': form }, FORMS[form]((performance.now() - began) / 1000));
}

let grownAt = 0;

function grow() {
  grownAt = performance.now();
  for (const element of document.querySelectorAll('[data-since]')) {
    const words = FORMS[element.dataset.form]((grownAt - Number(element.dataset.since)) / 1000);
    if (element.textContent !== words) element.textContent = words;
  }
}

// With whatever else is drawn, or else by themselves: one frame is enough for both.
follow({ draw: grow });
setInterval(() => {
  if (!document.hidden && performance.now() - grownAt > 900) grow();
}, 1000);
