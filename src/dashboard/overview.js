/** The fleet as /api/overview reports it: the status, the figures, the panels, and the age of the data. */

import { call } from "./api.js";
import { liveChart } from "./charts.js";
import { byId, element, show, showChip } from "./dom.js";
import { bytes, counted, duration, milliseconds, number, percent, timeOfDay } from "./format.js";
import { repeat } from "./poll.js";
import { drawSparkline } from "./sparkline.js";

/** @typedef {import("./dom.js").Level} Level */

const POLL_SECONDS = 3;
/** The service reuses an overview for half a second. Earlier, it may not contain a change. */
const SETTLED_MS = 600;
const SHOWN_SECONDS = 300;
/** The number of values for which a new line has room. */
const FEWEST_SLOTS = 30;
/** An older overview is shown as out of date. */
const STALE_SECONDS = 6;
const TRANSITIONS_SHOWN = 5;
/** The proxy's queue is paused if its next slot is later than an interval plus this time. */
const HELD_SECONDS = 2;

/** The texts of the panels while Redis is unavailable: the present behaviour, and what happens next. */
const WITHOUT_REDIS = [
  ["breaker-note", "Redis is unavailable. Each worker uses its own breaker until Redis answers."],
  ["limiter-note", "Redis is unavailable. The workers share quotas again when Redis answers."],
  ["cache-note", "Redis is unavailable. Each worker serves only the summaries it kept, until Redis answers."],
  ["proxy-note", "Redis is unavailable. Each worker has its own queue until Redis answers."],
  ["redis-note", "Points are not stored. The service keeps trying to connect, without a restart."],
];

/** @type {Record<string, { level: Level, lead: string, chip: string }>} */
const BREAKER_STATES = {
  CLOSED: { level: "ok", lead: "Closed", chip: "calls go through" },
  OPEN: { level: "critical", lead: "Open", chip: "calls are rejected" },
  HALF_OPEN: { level: "warning", lead: "Half open", chip: "one call is the probe" },
};

/**
 * Show the overview, and update it from now on.
 * @returns {{ follow: (listener: (overview: any) => void) => void, readSoon: () => void }} `follow` adds a
 *   listener for each new overview; `readSoon` reads once more, as soon as a recent change is visible.
 */
export function watchOverview() {
  const figures = makeFigures();
  /** @type {((overview: any) => void)[]} */
  const listeners = [];
  /** @type {any} */
  let shown = null;
  let changedAt = performance.now();

  const look = repeat(POLL_SECONDS, async (signal) => {
    let overview;
    try {
      overview = await call("GET", "api/overview", { signal });
    } catch (error) {
      if (signal.aborted) throw error;
      return; // the page shows the age of the data
    }
    if (overview.generated_at === shown?.generated_at) return;
    const pause = (performance.now() - changedAt) / 1000;
    changedAt = performance.now();
    figures.add(overview, shown !== null && pause > STALE_SECONDS);
    shown = overview;
    showParts(overview);
    tick();
    for (const tell of listeners) tell(overview);
  });

  function tick() {
    const age = (performance.now() - changedAt) / 1000;
    showTruth(shown, age);
    if (shown) showCountdown(shown.breaker, age);
  }
  setInterval(tick, 1000);
  return {
    follow: (listener) => void listeners.push(listener),
    readSoon: () => void setTimeout(look, SETTLED_MS),
  };
}

/**
 * Show the status. A status that is too old is shown as old.
 * @param {any} overview
 * @param {number} age In seconds.
 */
function showTruth(overview, age) {
  const isStale = age > STALE_SECONDS;
  byId("freshness").dataset.state = isStale ? "stalled" : overview ? "live" : "waiting";
  if (isStale) {
    const since = `No answer from the service for ${duration(age)}`;
    show("freshness-words", overview ? `data is ${duration(age)} old` : "no data");
    showStatus("unknown", overview ? `${since}. Last status: ${overview.status.message}` : since, "No answer from the service");
  } else if (overview) {
    show("freshness-words", "live");
    showStatus(overview.status.level, overview.status.message, overview.status.code);
  }
}

let announced = "";

/**
 * @param {Level} level
 * @param {string} message
 * @param {string} code The subject, without the changing numbers of the message. A new code is read out.
 */
function showStatus(level, message, code) {
  byId("truth").dataset.level = level;
  show("message", message);
  document.title = `${level === "ok" ? "" : "● "}${message.split(/[:.] /)[0]} | Resilient Analytics`;
  if (code === announced) return;
  announced = code;
  show("announcement", message);
}

/** The numbers and lines with a history since the page was opened. */
function makeFigures() {
  const throughput = liveChart(canvas("throughput-chart"), ["points/s", "requests/s"], SHOWN_SECONDS);
  const latency = liveChart(canvas("latency-chart"), ["p50 ms", "p95 ms", "p99 ms"], SHOWN_SECONDS);
  const slots = SHOWN_SECONDS / POLL_SECONDS;
  /** @type {Record<string, (number | null)[]>} */
  const past = { points: [], requests: [], p95: [], "hit-ratio": [], errors: [] };

  /**
   * @param {any} overview
   * @param {boolean} afterGap Whether overviews before this one are missing.
   */
  function add(overview, afterGap) {
    const { traffic, cache } = overview;
    const times = traffic.latency_ms;
    if (afterGap) {
      const before = Date.now() - 1;
      throughput(before, [null, null]);
      latency(before, [null, null, null]);
    }
    throughput(Date.now(), [traffic.points_per_second, traffic.requests_per_second]);
    latency(Date.now(), [times.p50, times.p95, times.p99]);
    figure("points", traffic.points_per_second, number);
    figure("requests", traffic.requests_per_second, number);
    figure("p95", times.p95, milliseconds);
    figure("hit-ratio", cache.hit_ratio, percent);
    figure("errors", traffic.errors_per_second, number);
    show("p50-now", milliseconds(times.p50));
    show("p95-now", milliseconds(times.p95));
    show("p99-now", milliseconds(times.p99));
  }

  /**
   * @param {string} name
   * @param {number | null} value
   * @param {(value: number | null) => string} format
   */
  function figure(name, value, format) {
    const values = past[name];
    values.push(value);
    if (values.length > slots) values.shift();
    show(name, format(value));
    drawSparkline(byId(`${name}-spark`), values, { fromZero: true, slots: Math.max(values.length, FEWEST_SLOTS) });
  }

  return { add };
}

/** @param {string} id */
function canvas(id) {
  return /** @type {HTMLCanvasElement} */ (byId(id));
}

/** @param {any} overview */
function showParts(overview) {
  const { limiter, cache, redis } = overview;
  show("workers", counted(overview.workers, "worker"));
  showBreaker(overview.breaker);
  show("provider-failure-rate", percent(overview.external_service.failure_rate));
  show("lab-calls", number(overview.external_service.lab_calls_per_second));
  for (const [id, note] of WITHOUT_REDIS) {
    byId(id).hidden = redis.connected;
    show(id, redis.connected ? "" : note);
  }

  show("limiter-allowed", number(limiter.allowed_per_second));
  show("limiter-refused", number(limiter.refused_per_second));
  show("limiter-bypassed", number(limiter.bypassed_per_second));
  const alone = { open: "lets all through", local: "each worker its share", closed: "refuses all" };
  if (!redis.connected) showChip("limiter-chip", "warning", alone[redis.rate_limits_without]);
  else if (limiter.bypassed_per_second > 0) showChip("limiter-chip", "warning", alone.open);
  else if (limiter.refused_per_second > 0) showChip("limiter-chip", "warning", "refusing");
  else showChip("limiter-chip", "ok", "within quota");

  show("cache-hits", number(cache.hits_per_second));
  show("cache-misses", number(cache.misses_per_second));
  show("cache-stale", number(cache.stale_per_second));
  if (cache.stale_per_second > 0) showChip("cache-chip", "warning", "serves stale");
  else if (cache.hit_ratio === null) showChip("cache-chip", "unknown", "idle");
  else showChip("cache-chip", "ok", `${percent(cache.hit_ratio)} hits`);

  showProxy(overview.proxy);

  show("redis-latency", milliseconds(redis.latency_ms));
  show("redis-memory", bytes(redis.memory_bytes));
  show("redis-trips", number(redis.round_trips_per_second));
  showChip("redis-chip", redis.connected ? "ok" : "critical", redis.connected ? "connected" : "unavailable");
}

/** @param {any} breaker */
function showBreaker(breaker) {
  const { level, lead, chip } = BREAKER_STATES[breaker.state];
  showChip("breaker-chip", level, chip);
  show("breaker-state", lead);
  show("breaker-failure-rate", percent(breaker.failure_rate));
  show("breaker-failures", number(breaker.failure_count));
  const latest = breaker.transitions.slice(-TRANSITIONS_SHOWN).reverse();
  /** @type {string[][]} */
  const rows = latest.map((/** @type {any} */ change) => [
    timeOfDay(change.at),
    `${words(change.before)} → ${words(change.after)}`,
    change.reason,
  ]);
  const place = byId("transitions");
  const drawn = JSON.stringify(rows);
  if (place.dataset.drawn === drawn) return;
  place.dataset.drawn = drawn;
  place.replaceChildren(
    ...rows.map(([at, states, reason]) =>
      element(
        "li",
        {},
        element("time", {}, at),
        element("span", { class: "states" }, states),
        element("span", { class: "reason" }, reason),
      ),
    ),
  );
  if (rows.length === 0) place.append(element("li", { class: "quiet" }, "None yet"));
}

/** @param {string} state */
function words(state) {
  return BREAKER_STATES[state]?.lead.toLowerCase() ?? state;
}

/**
 * Show the time until an open breaker probes.
 * @param {any} breaker
 * @param {number} age The age of the breaker's state, in seconds.
 */
function showCountdown(breaker, age) {
  const left = breaker.retry_after === null ? null : Math.max(0, breaker.retry_after - age);
  if (breaker.state === "OPEN") {
    show("breaker-words", left === null ? "Open until somebody closes it" : `Lets one call through in ${duration(left)}`);
  } else if (breaker.state === "HALF_OPEN") {
    show("breaker-words", "The result of the next call closes or opens the breaker");
  } else {
    show("breaker-words", "The external service is called as usual");
  }
}

/** @param {any} proxy */
function showProxy(proxy) {
  if (proxy === null) {
    showChip("proxy-chip", "unknown", "not in use");
    return;
  }
  const { queue_size: size, capacity, oldest_age_seconds: oldest } = proxy;
  show("proxy-size", `${number(size)} of ${number(capacity)}`);
  show("proxy-age", size > 0 ? duration(oldest) : "queue is empty");
  show("proxy-policy-now", proxy.policy === "fifo" ? "First in, first out" : "Priority");
  const isHeld = size > 0 && proxy.next_turn_seconds > proxy.interval_seconds + HELD_SECONDS;
  if (size >= capacity) showChip("proxy-chip", "critical", "full");
  else if (proxy.breaker.state !== "CLOSED") {
    showChip("proxy-chip", BREAKER_STATES[proxy.breaker.state].level, `breaker ${words(proxy.breaker.state)}`);
  }
  else if (isHeld) showChip("proxy-chip", "warning", `held for ${duration(proxy.next_turn_seconds)}`);
  else if (size > 0) showChip("proxy-chip", "ok", "moving");
  else showChip("proxy-chip", "ok", "empty");
}
