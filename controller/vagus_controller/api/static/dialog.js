// One dialog for every request that changes something: it states the consequence, and what came of it.

import { h } from './dom.js';

const title = h('h2', { id: 'ask-title' });
const words = h('div.dialog-words');
const reason = h('input', { name: 'reason', maxlength: 200, autocomplete: 'off' });
const reasonLabel = h('label', {}, 'Why ', reason);
const choice = h('select', { name: 'choice' });
const choiceWords = h('span');
const choiceLabel = h('label', {}, choiceWords, ' ', choice);
const force = h('input', { type: 'checkbox' });
const forceWords = h('span');
const forceLabel = h('label.check', {}, force, ' ', forceWords);
const trouble = h('p.trouble', { role: 'alert', hidden: true });
const no = h('button.quiet', { type: 'button' }, 'Cancel');
const yes = h('button.primary', { type: 'submit' });
const form = h('form', { method: 'dialog' }, title, words, choiceLabel, reasonLabel, forceLabel, trouble, h('div.dialog-buttons', {}, no, yes));
const dialog = h('dialog', { 'aria-labelledby': 'ask-title' }, form);
document.body.append(dialog);

let pending = null;
let needsReason = false;

// `consequence`: sentences or elements, the last one as a warning with `warn`. `reason`: ask for one, 'required' or not.
// `force`: what ticking the box means, "" for no box; then a reason is required. `choice`: { title, options: [[value, words], …], first } of a list.
// `act({reason, force, choice})` does it and throws an error with words; the dialog closes when it is done.
export function ask({ title: asked, consequence, warn = false, reason: asksReason = false, force: forced = '', choice: offered = null, confirm, act }) {
  pending = act;
  title.textContent = asked;
  words.replaceChildren(...consequence.map((line) => (line instanceof Node ? line : h('p', {}, line))));
  words.lastElementChild?.classList.toggle('warn-text', warn);
  reason.value = '';
  reasonLabel.hidden = !asksReason;
  needsReason = asksReason === 'required';
  choiceLabel.hidden = offered === null;
  choiceWords.textContent = offered?.title ?? '';
  choice.replaceChildren(...(offered?.options ?? []).map(([value, said]) => new Option(said, value)));
  choice.selectedIndex = offered?.first ?? 0;
  force.checked = false;
  wantReason();
  forceLabel.hidden = forced === '';
  forceWords.textContent = forced;
  yes.textContent = confirm;
  tell('');
  dialog.showModal();
}

function wantReason() {
  reason.required = needsReason || force.checked;
  reason.placeholder = `for the ledger${reason.required ? '' : ', optional'}`;
}

force.addEventListener('change', wantReason);

function tell(what) {
  trouble.textContent = what;
  trouble.hidden = what === '';
}

form.addEventListener('submit', async (event) => {
  event.preventDefault();
  if (!pending || yes.disabled) return;
  yes.disabled = true;
  tell('');
  try {
    const why = reason.value.trim() || (force.checked ? '' : 'asked for on the page');
    await pending({ reason: why, force: force.checked, choice: choice.value });
    dialog.close();
  } catch (error) {
    tell(error.message);
  } finally {
    yes.disabled = false;
  }
});

no.addEventListener('click', () => dialog.close());
