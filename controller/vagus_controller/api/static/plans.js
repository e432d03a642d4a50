// Plans and drills, stage by stage.

import { since } from './ages.js';
import { h, icon } from './dom.js';
import { ABSENT, closed, duration, plural, sentence } from './format.js';

const LATEST = 5;

export const isBusy = (plans, drills) => [...plans, ...drills].some((one) => one.state === 'under way');

const STATES = {
  __proto__: null,
  waits: ['unknown', 'unknown'],
  'on trial': ['suspect', 'info'],
  out: ['suspect', 'info'],
  back: ['suspect', 'info'],
  confirmed: ['ok', 'ok'],
  ok: ['ok', 'ok'],
  'rolled back': ['warning', 'warning'],
  aborted: ['warning', 'warning'],
  refused: ['critical', 'critical'],
  skipped: ['unknown', 'unknown'],
  'not begun': ['unknown', 'unknown'],
  'taken out': ['unknown', 'unknown'],
};

const OVERALL = { __proto__: null, 'under way': ['info', 'info'], done: ['ok', 'ok'], stopped: ['warning', 'warning'], 'dry run': ['info', 'info'] };

// The ones under way, and the last that ended.
export function progressBody(plans, drills) {
  const all = [...plans.map((plan) => ['plan', plan]), ...drills.map((drill) => ['drill', drill])].sort(
    ([, a], [, b]) => (b.state === 'under way') - (a.state === 'under way') || a.age_s - b.age_s,
  );
  if (!all.length) return [h('p.empty', {}, 'Nothing is under way, and nothing was yet.')];
  return all.slice(0, LATEST).map(([kind, one]) => (kind === 'plan' ? planBody(one) : drillBody(one)));
}

function frame(kind, one, ...content) {
  const [shape, severity] = OVERALL[one.state] ?? ['unknown', 'unknown'];
  const open = one.state === 'under way';
  return h(
    'details.progress',
    { 'data-key': `${kind} ${one.id}`, open },
    h('summary', {}, icon(shape, severity, 18), h('span', {}, h('strong', {}, sentence(one.what)), ` ${one.state}`), h('span.muted', {}, `by ${one.who}, `, since(one.age_s, one.heard, 'ago'))),
    one.reason && h('p.muted', {}, closed(sentence(one.reason))),
    one.outcome && h('p.note.warning', {}, closed(sentence(one.outcome))),
    content,
  );
}

function planBody(plan) {
  return frame('plan', { ...plan, what: plan.what || 'plan' }, stages(plan));
}

function stages(plan) {
  return h('ol.stages', {}, plan.stages.map((stage, number) => stageBody(stage, number, plan)));
}

function stageBody(stage, number, plan) {
  const done = stage.steps.filter((step) => step.state === 'confirmed').length;
  const title = number === 0 && plan.stages.length > 1 ? 'Canary' : `Stage ${number + 1}`;
  return h(
    'li',
    { 'data-key': number },
    h('p.stage-title', {}, title, h('span.muted', {}, plan.state === 'dry run' ? ` ${plural(stage.steps.length, 'pair')}` : ` ${done} of ${stage.steps.length} confirmed`)),
    h('ul', {}, stage.steps.map(stepLine)),
  );
}

function stepLine(step) {
  const [shape, severity] = STATES[step.state] ?? ['unknown', 'unknown'];
  return h(
    'li',
    { 'data-key': step.pair },
    icon(shape, severity, 15),
    h('span', {}, h('a', { href: `/pairs/${encodeURIComponent(step.pair)}` }, step.pair.replace('--', ' ⇄ ')), ` ${step.was} → ${step.path}: ${step.state}`, step.reason && h('span.muted', {}, ` ${closed(sentence(step.reason))}`)),
  );
}

function drillBody(drill) {
  const gap = (seconds) => (seconds === null ? ABSENT : seconds === 0 ? 'no gap' : `gap ${duration(seconds)}`);
  return frame(
    'drill',
    { ...drill, what: `drill of ${drill.what.replace('--', ' ⇄ ')}` },
    h(
      'ul.steps',
      {},
      drill.pairs.map((one) => {
        const [shape, severity] = STATES[one.state] ?? ['unknown', 'unknown'];
        const measured = one.gap_s === null && one.gap_back_s === null ? '' : `; out ${gap(one.gap_s)}, back ${gap(one.gap_back_s)}`;
        return h('li', { 'data-key': one.pair }, icon(shape, severity, 15), h('span', {}, `${one.pair.replace('--', ' ⇄ ')} by ${one.path || 'its standby'}: ${one.state}${measured}`, one.reason && h('span.muted', {}, ` ${closed(sentence(one.reason))}`)));
      }),
    ),
  );
}

// What a rehearsed plan would do, what would stop it, and the button that does it.
export function rehearsal(plan, wanted) {
  const count = plan.stages.reduce((sum, stage) => sum + stage.steps.length, 0);
  const list = (title, lines) => (lines.length ? [h('h3', {}, title), h('ul.evidence', {}, lines.map((line) => h('li', {}, closed(sentence(line)))))] : []);
  return [
    h(
      'div.rehearsal',
      { 'data-key': 'rehearsal' },
      h('p.state-line', {}, icon('info', 'info', 20), h('span', {}, 'Rehearsed: nothing was moved')),
      h('p', {}, closed(sentence(plan.what))),
      count > 0 && stages(plan),
      list('What must hold', plan.checks),
      list('What would end it early', plan.stops),
      list('Left out', plan.skipped),
      h(
        'div.actions',
        {},
        count > 0 && h('button.primary', { type: 'button', 'data-action': 'carry-out' }, wanted.path ? `Move ${plural(count, 'pair')} to ${wanted.path}…` : `Move ${plural(count, 'pair')} home…`),
        h('button.quiet', { type: 'button', 'data-action': 'forget' }, count > 0 ? 'Leave it' : 'Close'),
      ),
    ),
  ];
}
