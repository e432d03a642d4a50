// A line that says what came of something, and goes by itself; read aloud, for it stands in a status region.

import { h, icon } from './dom.js';

const STAYS_MS = 6000;

export function toast(words, severity = 'ok') {
  const element = h('p.toast', {}, icon(severity, severity, 18), h('span', {}, words));
  document.getElementById('toasts').append(element);
  setTimeout(() => element.remove(), STAYS_MS);
}
