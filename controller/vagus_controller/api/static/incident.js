// One incident: its cause with what comes of it, its timeline, and what a person may say of it.

import * as api from './api.js';
import { ask } from './dialog.js';
import { h, icon, replaceChildren } from './dom.js';
import { closed, known, plural, sentence } from './format.js';
import { when } from './history.js';
import { causesOf, severityOf, standing, subjectLink, troubleList } from './incidentlines.js';
import { MOODS, page } from './shell.js';
import { drawSoon, listen } from './store.js';
import { toast } from './toast.js';

const place = (id) => document.getElementById(id);
const id = Number(location.pathname.split('/')[2]);

let incident = null;
let heard = 0;
let trouble = '';

function take(found) {
  incident = found;
  heard = performance.now();
  trouble = '';
  drawSoon();
}

async function load() {
  try {
    take(await api.incident(id));
  } catch (error) {
    trouble = error.message;
    drawSoon();
  }
}

listen('incident', (found) => {
  if (found.id === id) take(found);
});

function say(where, words) {
  place(where).textContent = words;
  place(where).hidden = words === '';
}

function draw(fleet) {
  place('number').textContent = `#${id}`;
  say('trouble', trouble && closed(sentence(trouble)));
  place('known').hidden = incident === null;
  if (!incident) return;
  place('name').textContent = sentence(incident.title);
  replaceChildren(place('actions'), ...actions());
  replaceChildren(place('standing'), ...standingBody());
  drawCause(fleet);
  const steps = [...incident.timeline].reverse();
  replaceChildren(place('timeline'), steps.length ? h('ol.history.decisions', {}, steps.map((step, index) => stepLine(step, steps.length - index, fleet))) : h('p.empty', {}, 'Nothing is written of this time.'));
  replaceChildren(place('notes'), incident.notes.length ? h('ul.notes', {}, incident.notes.map((note) => h('li', {}, h('p', {}, note.text), h('p.muted.below', {}, `${note.who}, `, when(note.at))))) : h('p.empty', {}, 'No note yet.'));
  place('note-form').hidden = incident.state !== 'open';
}

function standingBody() {
  const severity = severityOf(incident);
  const mood = incident.state === 'open' ? MOODS[severity] : 'Past';
  const back = incident.reopened ? `, came back ${plural(incident.reopened, 'time')}` : '';
  return [
    h('p.state-line', {}, icon(severity, severity, 24), h('span', {}, `${mood}: `, ...standing(incident, heard), back)),
    h('p', {}, 'Began ', when(incident.at), incident.ended_at ? [', ended ', when(incident.ended_at)] : '', `. At its worst: ${known(incident.worst)}.`),
    incident.why && h('p', {}, h('strong', {}, 'Why: '), closed(incident.why)),
    ...(incident.doubts ?? []).map((doubt) => h('p', {}, h('strong', {}, 'Not known: '), closed(doubt))),
    h('p', {}, h('strong', {}, 'What vagus did: '), closed(incident.did || 'nothing')),
    incident.acknowledged_by && h('p', {}, h('strong', {}, `${incident.acknowledged_by} is on it`), incident.acknowledged_at ? [', since ', when(incident.acknowledged_at)] : '', '.'),
    incident.resolution && h('p', {}, h('strong', {}, 'Resolved: '), closed(sentence(incident.resolution))),
  ].filter(Boolean);
}

function drawCause(fleet) {
  const causes = incident.troubles.filter((one) => one.is_cause);
  const others = incident.troubles.filter((one) => !one.is_cause);
  const causesLeft = causesOf(incident) - causes.length;
  const left = incident.troubles_total - incident.troubles.length - causesLeft;
  replaceChildren(
    place('cause'),
    causes.length ? troubleList(causes, fleet, heard) : h('p.empty', {}, 'Its verdicts are not kept any more.'),
    causesLeft > 0 && h('p.muted', { 'data-key': 'causes' }, `${causesLeft} more of the same cause are not listed.`),
    others.length + left > 0 &&
      h(
        'details.consequences',
        { 'data-key': 'consequences' },
        h('summary', {}, `${plural(others.length + left, 'consequence')} of it`),
        troubleList(others, fleet, heard),
        left > 0 && h('p.muted', {}, `${left} more are not listed.`),
      ),
  );
}

const STEPS = { __proto__: null, verdict: 'found', action: 'vagus', person: 'person', incident: 'incident' };

function stepLine(step, number, fleet) {
  const severity = known(step.severity);
  return h(
    'li',
    { 'data-key': number },
    when(step.at),
    h('span.chip', {}, STEPS[step.kind] ?? step.kind),
    h('p', {}, icon(severity === 'ok' ? 'up' : severity, severity, 12), ' ', h('strong', {}, subjectLink(step.subject, fleet)), ` ${closed(step.text)}`),
  );
}

// --- what a person may say -------------------------------------------------------------------------------------------------

function actions() {
  const button = (key, words, primary) => h(primary ? 'button.primary' : 'button', { type: 'button', 'data-key': key, 'data-action': key, 'data-command': key !== 'link' }, words);
  const link = button('link', 'Copy the link');
  if (incident.state !== 'open') return [link];
  return [!incident.acknowledged_by && button('acknowledge', 'Acknowledge', true), button('resolve', 'Resolve'), link].filter(Boolean);
}

const commands = {
  acknowledge() {
    ask({
      title: 'Acknowledge',
      consequence: ['Everybody sees that you are on it, and it is not told again. It stays open until its verdicts are well, or somebody resolves it.'],
      confirm: 'Acknowledge',
      act: async () => take(await api.acknowledge(id)),
    });
  },
  resolve() {
    ask({
      title: 'Resolve',
      consequence: ['It is closed although its verdicts may still be bad; when they get worse, or come back, it opens again. Say why it is none.'],
      reason: 'required',
      confirm: 'Resolve',
      act: async ({ reason }) => take(await api.resolveIncident(id, reason)),
    });
  },
  async link() {
    try {
      await navigator.clipboard.writeText(location.href);
      toast('The link is copied. Whoever opens it signs in first.');
    } catch {
      toast(`The link is ${location.href}`, 'info');
    }
  },
};

document.addEventListener('click', (event) => commands[event.target.closest('button[data-action]')?.dataset.action]?.());

place('note-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const field = place('note');
  try {
    take(await api.note(id, field.value.trim()));
    field.value = '';
    say('note-trouble', '');
  } catch (error) {
    say('note-trouble', error.message);
  }
});

page({ draw, opened: load, title: () => (incident ? `#${id} ${incident.title}` : `#${id}`) });
