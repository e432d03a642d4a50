// One dialog for every request that moves traffic: it states the consequence, and what came of it.

const dialog = document.getElementById('ask');
const form = dialog.querySelector('form');
const { reason, force } = form.elements;
const trouble = document.getElementById('ask-trouble');
const yes = document.getElementById('ask-yes');
let pending = null;

// `act({reason, force})` does it and throws an error with words; the dialog closes when it is done.
export function ask({ title, consequence, warn = false, reason: asksReason = false, force: forceWords = '', confirm, act }) {
  pending = act;
  document.getElementById('ask-title').textContent = title;
  const words = document.getElementById('ask-words');
  words.replaceChildren(
    ...consequence.map((line) => {
      const paragraph = document.createElement('p');
      paragraph.textContent = line;
      return paragraph;
    }),
  );
  words.lastElementChild.classList.toggle('warn-text', warn);
  reason.value = '';
  document.getElementById('ask-reason').hidden = !asksReason;
  force.checked = false;
  document.getElementById('ask-force').hidden = forceWords === '';
  document.getElementById('ask-force-words').textContent = forceWords;
  yes.textContent = confirm;
  tell('');
  dialog.showModal();
}

function tell(words) {
  trouble.textContent = words;
  trouble.hidden = words === '';
}

form.addEventListener('submit', async (event) => {
  event.preventDefault();
  if (!pending || yes.disabled) return;
  yes.disabled = true;
  tell('');
  try {
    await pending({ reason: reason.value.trim() || 'asked for on the page', force: force.checked });
    dialog.close();
  } catch (error) {
    tell(error.message);
  } finally {
    yes.disabled = false;
  }
});

document.getElementById('ask-no').addEventListener('click', () => dialog.close());
