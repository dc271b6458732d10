/** Repeated tasks, which run only while the page is visible. */

/**
 * Run `task` at once and then repeatedly. Rounds never overlap. When the page is hidden, the running round is
 * aborted and no other begins. When the page is visible again, a round begins at once.
 * @param {number} seconds The time from the end of a round to the next.
 * @param {(signal: AbortSignal) => Promise<void>} task Handles its own errors. Errors after the abort are dropped.
 * @returns {() => void} Begins the next round now.
 */
export function repeat(seconds, task) {
  /** @type {AbortController | null} */
  let round = null;
  let timer = 0;

  async function run() {
    clearTimeout(timer);
    round?.abort();
    if (document.hidden) return;
    const mine = new AbortController();
    round = mine;
    try {
      await task(mine.signal);
    } catch (error) {
      if (!mine.signal.aborted) throw error;
    } finally {
      if (round === mine && !mine.signal.aborted) timer = setTimeout(run, seconds * 1000);
    }
  }

  document.addEventListener("visibilitychange", run);
  run();
  return run;
}
