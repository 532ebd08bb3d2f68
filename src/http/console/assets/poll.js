// Asks again and again: every few seconds while somebody looks, rarely when the page is hidden, ever more
// rarely when no answer comes, and not before the server wants to be asked.

const SHOWN = 4_000;
const HIDDEN = 60_000;
const MOST = 60_000;

export class Poll {
  #work;
  #timer;
  #failures = 0;
  #running = null;
  #stopped = true;

  constructor(work) {
    this.#work = work;
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.soon(); });
    addEventListener("online", () => this.soon());
  }

  start() {
    this.#stopped = false;
    return this.soon();
  }

  stop() {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  /** Now; after what is running, because that may have begun before a change. */
  async soon() {
    await this.#running;
    if (!this.#stopped) await this.#round();
  }

  async #round() {
    if (this.#running) return this.#running;
    clearTimeout(this.#timer);
    this.#running = this.#work().catch((error) => {
      // A fault of the page itself: the browser's log has it, and the next round is made all the same.
      reportError(error);
      return { failed: true };
    });
    const { failed = false, wait = 0 } = await this.#running;
    this.#running = null;
    this.#failures = failed ? this.#failures + 1 : 0;
    const usual = (document.hidden ? HIDDEN : SHOWN) * 2 ** Math.min(this.#failures, 4);
    if (!this.#stopped) this.#timer = setTimeout(() => this.#round(), Math.max(Math.min(usual, MOST), wait * 1000));
  }
}
