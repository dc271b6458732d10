/** Load tests and their results: every call is counted in exactly one row. */

import { isAskingForKey } from "./admin_key.js";
import { ask, callAsAdmin } from "./api.js";
import { milliseconds, number } from "./format.js";

/**
 * @typedef {object} Run
 * @property {number} amount Requests or seconds, as the target counts.
 * @property {number} concurrency
 * @property {AbortSignal} signal Ends the test early.
 * @property {(share: number) => void} onProgress Called with the completed share, 0 to 1.
 */

/**
 * @typedef {object} Target
 * @property {string} label
 * @property {string} words A description of the target.
 * @property {{label: string, max: number, value: number}} amount
 * @property {{max: number, value: number}} concurrency
 * @property {(run: Run) => Promise<[string, string][]>} run Returns the rows of the result.
 */

/** A browser has six connections to a host; the page itself needs two of them. */
const BROWSER_CONNECTIONS = 4;

/** @type {Target[]} */
export const TARGETS = [
  {
    label: "Provider, through the pipeline",
    words: "The API calls the provider repeatedly (POST /stress). This needs the admin key.",
    amount: { label: "Seconds", max: 60, value: 5 },
    concurrency: { max: 200, value: 20 },
    run: stress,
  },
  {
    label: "Ingest, from this browser",
    words: "POST /api/metrics. The rate limiter rejects requests beyond the quota of this address.",
    amount: { label: "Requests", max: 1000, value: 60 },
    concurrency: { max: BROWSER_CONNECTIONS, value: BROWSER_CONNECTIONS },
    run: (run) =>
      fromHere(run, (number) => {
        const body = { timestamp: new Date().toISOString(), value: number % 100, type: "load_test" };
        return ask("POST", "api/metrics", { body, signal: run.signal, timeoutMs: 0 });
      }),
  },
  {
    label: "Proxy queue, from this browser",
    words: "GET /proxy/get. Each request is different, so that each takes its place in the queue.",
    amount: { label: "Requests", max: 200, value: 10 },
    concurrency: { max: BROWSER_CONNECTIONS, value: BROWSER_CONNECTIONS },
    run: (run) => {
      const test = Date.now();
      return fromHere(run, (number) => ask("GET", `proxy/get?test=${test}-${number}`, { signal: run.signal, timeoutMs: 0 }));
    },
  },
];

/**
 * Run a stress test of the API's pipeline.
 * @param {Run} run
 * @returns {Promise<[string, string][]>}
 */
async function stress({ amount, concurrency, signal, onProgress }) {
  let began = performance.now();
  const timer = setInterval(() => {
    if (isAskingForKey()) began = performance.now();
    onProgress(Math.min(1, (performance.now() - began) / 1000 / amount));
  }, 200);
  try {
    const report = await callAsAdmin("POST", `stress?seconds=${amount}&concurrency=${concurrency}`, { signal, timeoutMs: 0 });
    return [
      ["Succeeded", number(report.succeeded)],
      ["Recovered by a retry", number(report.recovered)],
      ["Answered by the fallback", number(report.fallback)],
      ["Rejected", number(report.rejected)],
      ["Unfinished", number(report.unfinished)],
      ["Calls a second", number(report.throughput_per_second)],
      ["p50, with waits", milliseconds(report.p50_ms)],
      ["p95, with waits", milliseconds(report.p95_ms)],
      ["p99, with waits", milliseconds(report.p99_ms)],
      ["Rejected after the limiter: p50", milliseconds(report.rejected_p50_ms)],
      ["Rejected after the limiter: p95", milliseconds(report.rejected_p95_ms)],
    ];
  } finally {
    clearInterval(timer);
  }
}

/**
 * Send requests from this browser, `concurrency` at once, and count the results.
 * @param {Run} run
 * @param {(number: number) => Promise<Response>} send Sends request number 0, 1, …
 * @returns {Promise<[string, string][]>}
 */
async function fromHere({ amount, concurrency, signal, onProgress }, send) {
  /** @type {Map<string, number>} */
  const outcomes = new Map();
  /** @type {number[]} */
  const times = [];
  const began = performance.now();
  let next = 0;
  let done = 0;

  async function sender() {
    while (next < amount && !signal.aborted) {
      const sent = performance.now();
      const outcome = await outcomeOf(send(next++), signal);
      if (outcome === "stopped") continue;
      times.push(performance.now() - sent);
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      onProgress(++done / amount);
    }
  }
  await Promise.all(Array.from({ length: concurrency }, sender));

  times.sort((a, b) => a - b);
  const seconds = (performance.now() - began) / 1000;
  return [
    ...[...outcomes].sort().map(([outcome, count]) => /** @type {[string, string]} */ ([outcome, number(count)])),
    ...(done < amount ? [/** @type {[string, string]} */ (["Not sent, or stopped", number(amount - done)])] : []),
    ["Requests a second", number(done / seconds)],
    ["p50", milliseconds(quantile(times, 0.5))],
    ["p95", milliseconds(quantile(times, 0.95))],
  ];
}

/**
 * @param {Promise<Response>} request
 * @param {AbortSignal} signal
 * @returns {Promise<string>} The status in words, or the reason why there is none.
 */
async function outcomeOf(request, signal) {
  try {
    const answer = await request;
    await answer.arrayBuffer(); // the connection is free after the whole body was read
    return `${answer.status} ${answer.statusText}`.trim();
  } catch {
    return signal.aborted ? "stopped" : "No answer";
  }
}

/**
 * @param {number[]} sorted
 * @param {number} share
 * @returns {number | null} The percentile by nearest rank.
 */
function quantile(sorted, share) {
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? null;
}
