// Numbers and words for people. An absent value is a dash, never a zero.

export const ABSENT = '—';

const absent = (value) => value === null || value === undefined || Number.isNaN(value);

// Seconds → "24 ms", "1.2 s", "3 min", "5 h 10 min", "12 d 4 h".
export function duration(seconds) {
  if (absent(seconds)) return ABSENT;
  if (seconds < 0) return `−${duration(-seconds)}`;
  if (seconds === 0) return '0 s';
  if (seconds < 0.01) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return two(Math.floor(seconds / 3600), 'h', Math.floor((seconds % 3600) / 60), 'min');
  return two(Math.floor(seconds / 86400), 'd', Math.floor((seconds % 86400) / 3600), 'h');
}

function two(big, bigUnit, small, smallUnit) {
  return small ? `${big} ${bigUnit} ${small} ${smallUnit}` : `${big} ${bigUnit}`;
}

// Whole seconds or more, for ages: "now" below one second and a half.
export function age(seconds) {
  if (absent(seconds)) return ABSENT;
  if (seconds < 1.5) return 'now';
  return seconds < 60 ? `${Math.floor(seconds)} s` : duration(seconds);
}

// "now" or "3 min ago".
export function ago(seconds) {
  const text = age(seconds);
  return text === 'now' || text === ABSENT ? text : `${text} ago`;
}

// 0..1 → "4 %", "0.4 %".
export function share(value) {
  if (absent(value)) return ABSENT;
  const percent = value * 100;
  if (percent > 0 && percent < 0.1) return '<0.1 %';
  return percent > 0 && percent < 9.95 && percent % 1 >= 0.05 ? `${percent.toFixed(1)} %` : `${Math.round(percent)} %`;
}

export function bytes(value) {
  if (absent(value)) return ABSENT;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit && value < 9.95 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

export function number(value, digits = 0) {
  return absent(value) ? ABSENT : value.toFixed(digits);
}

export function celsius(value) {
  return absent(value) ? ABSENT : `${Math.round(value)} °C`;
}

export function text(value) {
  return absent(value) || value === '' ? ABSENT : String(value);
}

// Epoch seconds → the viewer's own clock, with the day when it is not today's.
export function clock(at, now = new Date()) {
  if (absent(at)) return ABSENT;
  const when = new Date(at * 1000);
  const time = when.toLocaleTimeString('en-GB');
  return when.toDateString() === now.toDateString() ? time : `${when.getDate()} ${MONTHS[when.getMonth()]} ${time}`;
}

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

export function plural(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

export function sentence(words) {
  return words ? words[0].toUpperCase() + words.slice(1) : '';
}

// A reason that ends like a sentence, whatever the detector wrote.
export function closed(words) {
  return words === '' || /[.!?…]$/.test(words) ? words : `${words}.`;
}

const RELAYS = {
  __proto__: null,
  direct: 'direct',
  'peer-relay': 'peer relay',
  derp: 'DERP',
  idle: 'idle',
  'riding-backup': 'riding the backup',
};

export function relay(value) {
  return absent(value) ? ABSENT : RELAYS[value] ?? String(value);
}

const RANK = { __proto__: null, critical: 4, warning: 3, unknown: 2, info: 1, ok: 0 };

export function rank(severity) {
  return RANK[severity] ?? RANK.unknown;
}

export function worst(severities) {
  return severities.reduce((a, b) => (rank(b) > rank(a) ? b : a), 'ok');
}

// A severity that is safe as a class name.
export function known(severity) {
  return severity in RANK ? severity : 'unknown';
}
