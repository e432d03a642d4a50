// The live stream: it reconnects by itself and says when the last news came.

// Without a word for this long the picture is old (the controller speaks at least every three seconds), and the
// connection, which may be half open, is made anew.
export const STALE_AFTER_S = 6;
const RETRY_S = [0.5, 1, 2, 4, 8];

export class Stream {
  #source = null;
  #retries = 0;
  #timer = 0;
  #lastAt = performance.now();
  #openedAt = 0;

  // `heard(topic, data)` per message, data still JSON text; `opened()` per new connection; `refused()` when the server
  // answers but gives no stream.
  constructor(url, { heard, opened, refused }) {
    this.url = url;
    this.heard = heard;
    this.opened = opened;
    this.refused = refused;
  }

  get silence() {
    return (performance.now() - this.#lastAt) / 1000;
  }

  // Given up until somebody opens it again.
  get closed() {
    return this.#source === null && this.#timer === 0;
  }

  get stale() {
    return this.silence > STALE_AFTER_S;
  }

  open() {
    this.close();
    const source = new EventSource(this.url);
    this.#source = source;
    this.#openedAt = performance.now();
    source.onopen = () => this.opened();
    for (const topic of ['fleet', 'change', 'event', 'ledger', 'incident', 'ping']) {
      source.addEventListener(topic, (message) => {
        this.#retries = 0;
        this.#lastAt = performance.now();
        this.heard(topic, message.data);
      });
    }
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) this.refused();
      this.#again();
    };
  }

  // Called every second: a connection that is silent for too long is replaced.
  watch() {
    if (this.stale && this.#source && performance.now() - this.#openedAt > STALE_AFTER_S * 1000) this.#again();
  }

  close() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#source?.close();
    this.#source = null;
  }

  #again() {
    this.close();
    const base = RETRY_S[Math.min(this.#retries, RETRY_S.length - 1)];
    this.#retries += 1;
    this.#timer = setTimeout(() => this.open(), base * (750 + 500 * Math.random()));
  }
}
