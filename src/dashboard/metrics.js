/**
 * What is measured: the types, each with its last hour as a line, and a chart of the chosen one.
 *
 * These reads have a quota of their own, ten times the read quota (1,200 a minute by default), which all pages
 * behind one address share. A page reads the chosen series every 10 s, the types every 30 s, and each of the
 * eight lines every two minutes: twelve reads a minute. When the quota is used up, the page shows that, and
 * waits until it may read again.
 */

import { ApiError, call } from "./api.js";
import { seriesChart } from "./charts.js";
import { byId, element, show } from "./dom.js";
import { counted, number, timeOfDay } from "./format.js";
import { repeat } from "./poll.js";
import { drawSparkline } from "./sparkline.js";

/** @typedef {import("./charts.js").Step} Step */
/** @typedef {{type: string, count: number, latest_timestamp: string, latest_value: number, series: number}} MetricType */

const POLL_SECONDS = 10;
const TYPES_SECONDS = 30;
const TYPES_SHOWN = 8;
const LINE_RANGE = "1h";
const LINE_SECONDS = 120;

/** The ranges of the API, by the words in the caption. */
const RANGE_WORDS = new Map([["15min", "15 minutes"], ["1h", "hour"], ["6h", "6 hours"], ["24h", "24 hours"]]);

/**
 * Show the metrics, and update them from now on.
 * @returns {() => void} Call it when there are new points: it reads all metrics again.
 */
export function watchMetrics() {
  const draw = seriesChart(/** @type {HTMLCanvasElement} */ (byId("series-chart")));
  const find = /** @type {HTMLInputElement} */ (byId("find-type"));
  /** @type {MetricType[]} */
  let types = [];
  let typesAt = 0;
  /** @type {string | null} */
  let chosen = null;
  let range = "1h";
  let notBefore = 0;
  /** @type {Map<string, {values: (number | null)[], at: number}>} */
  const lines = new Map();

  const lookNow = repeat(POLL_SECONDS, async (signal) => {
    if (Date.now() < notBefore) return;
    try {
      if (chosen === null || isOver(typesAt, TYPES_SECONDS)) await refreshTypes(signal);
      if (chosen !== null) await showChosen(chosen, signal);
      await refreshLines(signal);
      byId("metrics-note").hidden = true;
    } catch (error) {
      if (signal.aborted || !(error instanceof ApiError)) throw error;
      apologise(error);
    }
  });

  /** @param {AbortSignal} signal */
  async function refreshTypes(signal) {
    types = await call("GET", "api/dashboard/types", { signal });
    typesAt = Date.now();
    chosen ??= types[0]?.type ?? null;
    showTypes();
  }

  /**
   * @param {string} type
   * @param {AbortSignal} signal
   */
  async function showChosen(type, signal) {
    const steps = await series(type, range, signal);
    draw(steps);
    show("series-caption", caption(type, steps, range));
  }

  /** @param {AbortSignal} signal */
  async function refreshLines(signal) {
    for (const { type } of matching().slice(0, TYPES_SHOWN)) {
      if (!isOver(lines.get(type)?.at ?? 0, LINE_SECONDS)) continue;
      const steps = await series(type, LINE_RANGE, signal);
      lines.set(type, { values: steps.map((step) => step.average), at: Date.now() });
      showTypes();
    }
  }

  /** @param {ApiError} error */
  function apologise(error) {
    const wait = Math.max(error.retryAfter ?? 0, POLL_SECONDS) * 1000;
    notBefore = Date.now() + wait;
    setTimeout(lookNow, wait);
    const why = error.status === 429 ? "The quota for pages of this address is used up" : error.message;
    show("metrics-note", `${why}. The metrics below are not current; the next update is at ${timeOfDay(notBefore)}.`);
    byId("metrics-note").hidden = false;
  }

  function matching() {
    const wanted = find.value.trim().toLowerCase();
    return types.filter(({ type }) => type.toLowerCase().includes(wanted));
  }

  function showTypes() {
    const found = matching();
    const shown = found.slice(0, TYPES_SHOWN);
    const list = byId("types");
    while (list.children.length > shown.length) list.lastElementChild?.remove();
    while (list.children.length < shown.length) list.append(typeRow(choose));
    shown.forEach((metric, place) => fillRow(list.children[place], metric, metric.type === chosen, lines.get(metric.type)?.values));
    byId("find").hidden = types.length <= TYPES_SHOWN;
    const rest = found.length - shown.length;
    show("types-more", types.length === 0 ? "No points yet. \"Post sample points\" stores some." : rest > 0 ? `and ${counted(rest, "more type")}` : "");
  }

  /** @param {string} type */
  function choose(type) {
    chosen = type;
    showTypes();
    lookNow();
  }

  find.addEventListener("input", showTypes);
  find.addEventListener("change", lookNow);
  byId("range").addEventListener("change", (event) => {
    range = /** @type {HTMLInputElement} */ (event.target).value;
    lookNow();
  });
  return () => {
    typesAt = 0;
    lines.clear();
    lookNow();
  };
}

/**
 * @param {number} since
 * @param {number} seconds
 */
function isOver(since, seconds) {
  return Date.now() - since >= seconds * 1000;
}

/**
 * @param {string} type
 * @param {string} range
 * @param {AbortSignal} signal
 * @returns {Promise<Step[]>}
 */
function series(type, range, signal) {
  return call("GET", `api/dashboard/series?${new URLSearchParams({ type, range })}`, { signal });
}

/** @param {(type: string) => void} choose */
function typeRow(choose) {
  const line = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  line.setAttribute("class", "spark");
  line.setAttribute("aria-hidden", "true");
  const button = element(
    "button",
    { type: "button", class: "type" },
    element("span", { class: "name" }),
    line,
    element("span", { class: "latest" }),
  );
  button.addEventListener("click", () => choose(button.dataset.type ?? ""));
  return element("li", {}, button);
}

/**
 * @param {Element} row
 * @param {MetricType} metric
 * @param {boolean} isChosen
 * @param {(number | null)[] | undefined} values
 */
function fillRow(row, metric, isChosen, values) {
  const button = /** @type {HTMLElement} */ (row.firstElementChild);
  const [name, line, latest] = button.children;
  button.dataset.type = metric.type;
  button.setAttribute("aria-pressed", String(isChosen));
  button.title = metric.type;
  const series = metric.series > 1 ? ` of ${metric.series} series` : "";
  name.replaceChildren(metric.type, element("span", { class: "count" }, `${counted(metric.count, "point")}${series}`));
  latest.textContent = number(metric.latest_value);
  drawSparkline(line, values ?? []);
}

/**
 * Say in words what the chart shows.
 * @param {string} type
 * @param {Step[]} steps
 * @param {string} range
 */
function caption(type, steps, range) {
  const full = steps.filter((step) => step.count > 0);
  const span = RANGE_WORDS.get(range);
  if (full.length === 0) return `${type}: no points in the last ${span}`;
  const count = full.reduce((sum, step) => sum + step.count, 0);
  const average = full.reduce((sum, step) => sum + step.count * (step.average ?? 0), 0) / count;
  const lowest = Math.min(...full.map((step) => step.min ?? Infinity));
  const highest = Math.max(...full.map((step) => step.max ?? -Infinity));
  return `${type}, last ${span}: ${counted(count, "point")}, average ${number(average)}, from ${number(lowest)} to ${number(highest)}`;
}
