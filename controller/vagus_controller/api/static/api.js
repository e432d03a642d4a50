// The REST API, for the page: errors come back as words.

export class ApiError extends Error {}

async function send(method, path, body, signal) {
  const headers = { Accept: 'application/json', 'X-Vagus-Request': 'page' };
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  let answer;
  try {
    answer = await fetch(`/api/v1${path}`, {
      method,
      headers,
      credentials: 'same-origin',
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
    });
  } catch {
    throw new ApiError('The controller does not answer. Nothing is known of what became of this request.');
  }
  if (answer.status === 401) {
    const here = location.pathname + location.search;
    location.assign(`/login?${new URLSearchParams(here === '/' ? { over: 1 } : { next: here, over: 1 })}`);
    throw new ApiError('Signed out: sign in again.');
  }
  if (!answer.ok) throw new ApiError((await answer.json().catch(() => null))?.detail || `The controller answered ${answer.status}.`);
  return answer;
}

export async function call(method, path, body) {
  const answer = await send(method, path, body);
  return answer.json().catch(() => null);
}

// A list is given item by item.
const query = (words) => {
  const pairs = Object.entries(words).flatMap(([name, value]) => (Array.isArray(value) ? value.map((item) => [name, item]) : [[name, value]]));
  const given = pairs.filter(([, value]) => value !== undefined && value !== null && value !== '');
  return given.length ? `?${new URLSearchParams(given)}` : '';
};

export const me = () => call('GET', '/me');
// `limit`, `before` (an id: the next page), `subject`.
export const events = (words) => call('GET', `/events${query(words)}`);
export const ledger = (words) => call('GET', `/ledger${query(words)}`);
export const switchover = (pair, path, reason, force) =>
  call('POST', '/switchover', { pair, path, reason, force });
export const failback = (pair, reason) => call('POST', '/failback', { pair, reason });
export const approve = (pair, reason) => call('POST', `/pairs/${encodeURIComponent(pair)}/approve`, { reason });
export const why = (subject) => call('GET', `/why/${encodeURIComponent(subject)}`);
export const plans = () => call('GET', '/plans');
// `ask`: see views.PlanAsk.
export const plan = (ask) => call('POST', '/plans', ask);
export const drills = () => call('GET', '/drills');
export const drill = (scope, target, reason) => call('POST', '/drills', { scope, target, reason });
export const pause = (scope, target, reason, seconds) =>
  call('POST', '/pauses', { scope, target, reason, for_s: seconds });
export const resume = (id) => call('DELETE', `/pauses/${id}`);

// Why the controller gives no stream: "" when it should now; a page that is signed out goes to sign in.
export async function refusal() {
  const heard = new AbortController();
  try {
    await send('GET', '/stream', undefined, heard.signal);
    return '';
  } catch (error) {
    return error.message;
  } finally {
    heard.abort();
  }
}

export const agent = (name) => call('GET', `/nodes/${encodeURIComponent(name)}/agent`);
// `since`, `until`, `step`: seconds. `peer`: whose links, a list; null for all.
export const nodeHistory = (name, words) => call('GET', `/nodes/${encodeURIComponent(name)}/history${query({ ...words, links: true })}`);
export const pairHistory = (pair, words) => call('GET', `/links/${encodeURIComponent(pair)}/history${query(words)}`);
export const sparklines = () => call('GET', '/sparklines');

// `show`: open, all; `limit`, `before`, `subject`, `since`, `until`.
export const incidents = (words) => call('GET', `/incidents${query(words)}`);
export const incident = (id) => call('GET', `/incidents/${id}`);
export const acknowledge = (id) => call('POST', `/incidents/${id}/acknowledge`);
export const note = (id, text) => call('POST', `/incidents/${id}/note`, { text });
export const resolveIncident = (id, note) => call('POST', `/incidents/${id}/resolve`, { note });
