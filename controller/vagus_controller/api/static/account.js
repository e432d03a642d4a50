// The account page: who I am, my password, API tokens, and for operators the users.

import { call } from './api.js';
import { ask } from './dialog.js';
import { h, replaceChildren } from './dom.js';
import { page } from './shell.js';

const place = (id) => document.getElementById(id);
const show = (id, visible) => {
  place(id).hidden = !visible;
};

page({ draw() {} });
const me = await attempt(() => call('GET', '/me'));

async function attempt(act) {
  try {
    return await act();
  } catch (error) {
    place('trouble').textContent = error.message;
    show('trouble', true);
    throw error;
  }
}

function day(at) {
  return new Date(at * 1000).toLocaleDateString(undefined, { year: 'numeric', month: 'short', day: 'numeric' });
}

function used(at) {
  return at === null ? 'never' : new Date(at * 1000).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' });
}

function table(heads, rows) {
  if (!rows.length) return h('p.empty', {}, 'None yet.');
  const cells = (row) => row.map((cell, index) => h(index ? 'td' : 'th', { scope: index ? null : 'row', 'data-label': heads[index] || null }, cell));
  return h(
    'table.cards',
    {},
    h('thead', {}, h('tr', {}, heads.map((head) => h('th', { scope: 'col' }, head)))),
    h('tbody', {}, rows.map((row) => h('tr', {}, cells(row)))),
  );
}

const button = (action, name, words, whom = name) => h('button', { type: 'button', 'data-action': action, 'data-name': name, 'aria-label': `${words}: ${whom}` }, words);

async function drawTokens() {
  const tokens = await attempt(() => call('GET', '/tokens'));
  const row = (one) => [
    one.name,
    one.role === 'operator' ? 'read and command' : 'read',
    one.owner === '-' ? 'http.token_file' : one.owner,
    one.expires_at === null ? 'when revoked' : day(one.expires_at),
    used(one.used_at),
    button('revoke', one.id, 'Revoke', one.name),
  ];
  replaceChildren(place('token-list'), table(['Name', 'May', 'Made by', 'Ends', 'Last used', ''], tokens.map(row)));
}

async function drawUsers() {
  const users = await attempt(() => call('GET', '/users'));
  const row = (one) => {
    const other = one.role === 'operator' ? 'viewer' : 'operator';
    return [
      one.name,
      one.role,
      day(one.made_at),
      [
        button(other, one.name, `Make ${other}`),
        button('password', one.name, 'New password'),
        button('remove', one.name, 'Remove'),
      ],
    ];
  };
  replaceChildren(place('user-list'), table(['Name', 'Role', 'Since', ''], users.map(row)));
}

const sure = (title, words, confirm, act) => ask({ title, consequence: [words], confirm, act });

const user = (name) => `/users/${encodeURIComponent(name)}`;
const role = (name, to) => () => call('PUT', user(name), { role: to }).then(drawUsers);
const actions = {
  revoke: (id) => sure('Revoke this token', 'Programs that use it are refused at once.', 'Revoke', () => call('DELETE', `/tokens/${encodeURIComponent(id)}`).then(drawTokens)),
  viewer: (name) => sure(`Make ${name} a viewer`, 'A viewer sees everything and commands nothing, at once.', 'Make viewer', role(name, 'viewer')),
  operator: (name) => sure(`Make ${name} an operator`, 'An operator can move the fleet’s traffic and change users.', 'Make operator', role(name, 'operator')),
  remove: (name) => sure(`Remove ${name}`, 'Their sessions and API tokens end at once.', 'Remove', () => call('DELETE', user(name)).then(drawUsers).then(drawTokens)),
  password(name) {
    const input = h('input', { type: 'password', autocomplete: 'new-password', minlength: 10, maxlength: 200, required: true });
    ask({
      title: `New password for ${name}`,
      consequence: ['Their sessions end at once.', h('label', {}, 'New password, 10 characters or more ', input)],
      confirm: 'Set it',
      act: () => call('PUT', user(name), { password: input.value }).then(drawUsers),
    });
  },
};

document.addEventListener('click', (event) => {
  const pressed = event.target.closest('button[data-action]');
  if (pressed) actions[pressed.dataset.action](pressed.dataset.name);
});

// `send(fields)` gives what to say when it is done.
function onSubmit(id, send) {
  const form = place(id);
  const said = form.querySelector('.said');
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const submit = form.querySelector('button');
    submit.disabled = true;
    said.classList.remove('text-critical');
    try {
      replaceChildren(said, ...(await send(form.elements)));
      form.reset();
    } catch (error) {
      said.classList.add('text-critical');
      replaceChildren(said, document.createTextNode(error.message));
    } finally {
      submit.disabled = false;
    }
  });
}

onSubmit('password-form', async (fields) => {
  await call('POST', '/me/password', { old: fields.old.value, new: fields.new.value });
  return [document.createTextNode('Changed. Your other sessions have ended.')];
});

onSubmit('token-form', async (fields) => {
  const days = fields.days.value;
  const made = await call('POST', '/tokens', {
    name: fields.name.value.trim(),
    role: fields.role.value,
    expires_in_s: days === '' ? null : Number(days) * 86400,
  });
  await drawTokens();
  return [document.createTextNode('Copy it now, it is shown only once:'), h('code.secret', { tabindex: 0 }, made.secret)];
});

onSubmit('user-form', async (fields) => {
  const name = fields.name.value.trim();
  await call('POST', '/users', { name, role: fields.role.value, password: fields.password.value });
  await drawUsers();
  return [document.createTextNode(`${name} can sign in now.`)];
});

const how = { password: 'by password', oidc: 'by OpenID Connect', file: 'with the token in http.token_file' }[me.origin];
replaceChildren(place('who'), document.createTextNode(`Account of ${me.name} `), h('span.chip', {}, me.role));
place('who').title = `signed in ${how}`;
show('password', me.has_password);
show('tokens', true);
place('token-form').elements.role.options[1].disabled = me.role !== 'operator';
show('users', me.role === 'operator');
await drawTokens();
if (me.role === 'operator') await drawUsers();
