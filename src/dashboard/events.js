/** The list of resilience events, newest first. */

import { byId, element, show, showChip } from "./dom.js";
import { duration, timeOfDay } from "./format.js";
import { followEvents } from "./stream.js";

/** @typedef {import("./dom.js").Level} Level */

/**
 * @typedef {object} Entry Consecutive events of the same kind.
 * @property {Record<string, any>} event The last of these events, without its count.
 * @property {number} times
 */

const KEPT = 60;
const DRAW_MS = 250;

const SIGNS = { ok: "✓", warning: "▲", critical: "✕", unknown: "○" };

/** @type {Record<string, (event: Record<string, any>) => [Level, string, string]>} The level, a name and a sentence. */
const TOLD = {
  StateChanged: (event) => [
    /** @type {Record<string, Level>} */ ({ OPEN: "critical", HALF_OPEN: "warning", CLOSED: "ok" })[event.after] ?? "unknown",
    `${event.before} → ${event.after}`,
    event.reason,
  ],
  ProbeStarted: () => ["unknown", "Probe", "one call tests the external service"],
  Rejected: (event) => ["warning", "Rejected", `retry in ${duration(event.retry_after)}`],
  Waited: (event) => ["unknown", "Waited", `${event.seconds} s for a slot`],
  Retried: (event) => ["unknown", "Retry", `attempt ${event.attempt} failed: ${event.error}`],
  RetriesExhausted: (event) => ["warning", "Gave up", `after ${event.attempts} attempts: ${event.error}`],
  TimedOut: (event) => ["warning", "Timed out", `stopped after ${event.seconds} s`],
  FellBack: (event) => ["warning", "Fallback", `answered in place of: ${event.error}`],
  Bypassed: (event) => ["warning", "Not rate-limited", event.error],
  CacheAnswered: (event) => ["warning", `Answered ${event.outcome}`, "the last good answer, because a new one failed"],
  CacheRefreshFailed: (event) => ["warning", "Refresh failed", event.error],
};

/**
 * Show the events, and follow the stream from now on.
 * @param {{ follow: (listener: (overview: any) => void) => void }} overview Reports whether Redis, which stores the events, is available.
 */
export function watchEvents(overview) {
  /** @type {Entry[]} */
  const entries = [];
  let timer = 0;
  let isHeld = false;
  let disconnected = "connecting"; // the reason, or empty while the stream is connected
  let hasLog = true;

  function showState() {
    if (disconnected) showChip("events-chip", "warning", disconnected);
    else if (!hasLog) showChip("events-chip", "warning", "none without Redis");
    else showChip("events-chip", "ok", "live");
    byId("events-empty").hidden = entries.length > 0 && !disconnected && hasLog;
    show("events-empty", emptyText());
  }

  function emptyText() {
    if (!hasLog) return "Redis is unavailable, so events are neither stored nor shown. New events appear here when Redis answers.";
    if (disconnected) return "The event stream is not connected. The page tries again by itself.";
    return "No events yet: no failure, no rejection, no change of state.";
  }

  function draw() {
    timer = 0;
    showState();
    if (!isHeld) byId("events").replaceChildren(...entries.map(row));
  }

  followEvents({
    onEvent({ times = 1, ...event }) {
      const newest = entries[0];
      if (newest && newest.event.event === event.event && newest.event.policy === event.policy && event.event !== "StateChanged") {
        entries[0] = { event, times: newest.times + times };
      } else {
        entries.unshift({ event, times });
        entries.length = Math.min(entries.length, KEPT);
      }
      timer ||= setTimeout(draw, DRAW_MS); // many events are drawn at most four times a second
    },
    onState(state, why) {
      disconnected = state === "live" ? "" : why;
      showState();
    },
  });
  overview.follow(({ redis }) => {
    hasLog = redis.connected;
    showState();
  });

  const hold = byId("events-pause");
  hold.addEventListener("click", () => {
    isHeld = !isHeld;
    hold.setAttribute("aria-pressed", String(isHeld));
    show("events-pause", isHeld ? "Resume" : "Pause");
    draw();
  });
}

/** @param {Entry} entry */
function row({ event, times }) {
  const [level, name, sentence] = (TOLD[event.event] ?? plainly)(event);
  return element(
    "li",
    { "data-level": level },
    element("span", { class: "mark", "aria-hidden": "true" }, SIGNS[level]),
    element("span", { class: "what" }, times > 1 ? `${name} × ${times}` : name, element("time", {}, timeOfDay(event.at))),
    element("span", { class: "words" }, `${event.policy}: ${sentence}`),
  );
}

/**
 * Describe an event for which the page has no text.
 * @param {Record<string, any>} event
 * @returns {[Level, string, string]}
 */
function plainly({ at, worker, policy, event, ...details }) {
  return ["unknown", event, Object.entries(details).map(([name, value]) => `${name} ${value}`).join(", ")];
}
