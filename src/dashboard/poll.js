/** Things done again and again, while somebody looks. */

/**
 * Do `task` at once and then every so often. Rounds never overlap. While the page is hidden nothing is done,
 * what is under way is stopped, and when it is seen again a round begins at once.
 * @param {number} seconds From the end of one round to the next.
 * @param {(signal: AbortSignal) => Promise<void>} task Sees to its own errors; what it throws once aborted is dropped.
 * @returns {() => void} Has the next round begin now.
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
