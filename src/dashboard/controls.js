/** The controls. Each changes one thing in the service, and shows the result below. */

import { call, callAsAdmin } from "./api.js";
import { byId, element, show, showResult } from "./dom.js";
import { counted } from "./format.js";
import { TARGETS } from "./load_test.js";
import { samplePoints } from "./sample_data.js";

const FAULTS = "api/admin/external-service/faults";

/** @param {string} id */
function field(id) {
  return /** @type {HTMLInputElement} */ (byId(id));
}

/** @typedef {ReturnType<typeof import("./overview.js").watchOverview>} OverviewWatch */

/**
 * Install the controls.
 * @param {OverviewWatch} overview
 * @param {() => void} readMetrics Called when there are new points.
 */
export function installControls(overview, readMetrics) {
  installFaults(overview);
  installBreaker(overview);
  installPolicy(overview);
  installLoadTest(readMetrics);
  installSample(readMetrics);
}

/**
 * Run an action and show its result. The control is disabled meanwhile.
 * @param {string} result The id of the element for the result.
 * @param {HTMLButtonElement | HTMLFieldSetElement} source The control.
 * @param {() => Promise<string>} action Returns the text of the result.
 */
async function act(result, source, action) {
  show(result, "");
  const hadFocus = document.activeElement;
  source.disabled = true;
  try {
    showResult(result, "ok", await action());
  } catch (error) {
    showResult(result, "critical", error instanceof Error ? error.message : String(error));
  } finally {
    source.disabled = false;
    if (hadFocus instanceof HTMLElement && document.activeElement === document.body) hadFocus.focus();
  }
}

/** @param {OverviewWatch} overview */
function installFaults(overview) {
  const rate = field("failure-rate");
  const latency = field("latency");
  const form = byId("faults");
  /** @type {number | null} */
  let lastRate = null;

  /** @param {number} percent */
  function showRate(percent) {
    show("failure-rate-shown", `${percent} %`);
  }

  /** @param {number} milliseconds */
  function showLatency(milliseconds) {
    show("latency-shown", `${milliseconds.toLocaleString("en")} ms`);
  }

  /** @param {number} share */
  function adoptRate(share) {
    rate.value = String(Math.round(share * 100));
    showRate(Math.round(share * 100));
  }

  /** @param {{failure_rate: number, latency_ms: number}} faults */
  function adopt({ failure_rate, latency_ms }) {
    adoptRate(failure_rate);
    latency.value = String(latency_ms);
    showLatency(latency_ms); // the latency may be above the slider's maximum
  }

  rate.addEventListener("input", () => showRate(rate.valueAsNumber));
  latency.addEventListener("input", () => showLatency(latency.valueAsNumber));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const button = /** @type {HTMLButtonElement} */ (form.querySelector("button"));
    act("faults-result", button, async () => {
      const body = { failure_rate: rate.valueAsNumber / 100, latency_ms: latency.valueAsNumber };
      adopt(await callAsAdmin("PUT", FAULTS, { body }));
      overview.readSoon();
      return `Fails ${rate.value} % of calls, delays each by ${latency.value} ms`;
    });
  });
  overview.follow(({ external_service: { failure_rate } }) => {
    // Another operator may have changed the rate.
    if (lastRate !== null && failure_rate !== null && failure_rate !== lastRate) adoptRate(failure_rate);
    lastRate = failure_rate;
  });
  call("GET", FAULTS).then(adopt, () => showResult("faults-result", "critical", "The provider does not report its settings"));
}

/** @param {OverviewWatch} overview */
function installBreaker(overview) {
  for (const [id, path, told] of [
    ["breaker-open", "open", "Open until somebody closes it"],
    ["breaker-close", "close", "Closed; all counts are reset"],
  ]) {
    const button = /** @type {HTMLButtonElement} */ (byId(id));
    button.addEventListener("click", () =>
      act("breaker-result", button, async () => {
        await callAsAdmin("POST", `api/admin/circuit-breaker/${path}`);
        overview.readSoon();
        return told;
      }),
    );
  }
}

/** @param {OverviewWatch} overview */
function installPolicy(overview) {
  const fieldset = /** @type {HTMLFieldSetElement} */ (byId("policy"));
  let isBusy = false;
  let known = "";

  /** @param {string} policy */
  function adopt(policy) {
    known = policy;
    for (const input of fieldset.querySelectorAll("input")) input.checked = input.value === policy;
  }

  fieldset.addEventListener("change", (event) => {
    const policy = /** @type {HTMLInputElement} */ (event.target).value;
    isBusy = true;
    act("policy-result", fieldset, async () => {
      try {
        adopt((await callAsAdmin("PUT", "api/admin/proxy/policy", { body: { policy } })).policy);
        overview.readSoon();
        return policy === "fifo" ? "The oldest request is next" : "The request with the lowest priority number is next";
      } catch (error) {
        adopt(known);
        throw error;
      }
    }).finally(() => {
      isBusy = false;
    });
  });

  overview.follow(({ proxy }) => {
    if (isBusy) return;
    fieldset.disabled = proxy === null;
    if (proxy !== null) adopt(proxy.policy);
  });
}

/** @param {() => void} readMetrics */
function installLoadTest(readMetrics) {
  const form = /** @type {HTMLFormElement} */ (byId("load"));
  const select = /** @type {HTMLSelectElement} */ (byId("load-target"));
  const start = /** @type {HTMLButtonElement} */ (byId("load-start"));
  const stop = /** @type {HTMLButtonElement} */ (byId("load-stop"));
  const bar = /** @type {HTMLProgressElement} */ (byId("load-bar"));
  const amount = field("load-amount");
  const concurrency = field("load-concurrency");
  let stopper = new AbortController();

  const target = () => TARGETS[select.selectedIndex];
  TARGETS.forEach(({ label }) => select.append(element("option", {}, label)));

  function adopt() {
    show("load-words", target().words);
    show("load-amount-label", target().amount.label);
    bound(amount, target().amount);
    bound(concurrency, target().concurrency);
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    stopper = new AbortController();
    const { signal } = stopper;
    stop.disabled = false;
    bar.value = 0;
    byId("load-progress").hidden = false;
    byId("load-tally").hidden = true;
    act("load-result", start, async () => {
      try {
        const rows = await target().run({
          amount: amount.valueAsNumber,
          concurrency: concurrency.valueAsNumber,
          signal,
          onProgress: (share) => {
            bar.value = share;
          },
        });
        showTally(rows);
        readMetrics();
        return signal.aborted ? "Stopped" : "Done";
      } catch (error) {
        if (signal.aborted) throw new Error("Stopped, so there is no result");
        throw error;
      } finally {
        stop.disabled = true;
        byId("load-progress").hidden = true;
      }
    });
  });
  stop.addEventListener("click", () => stopper.abort());
  select.addEventListener("change", adopt);
  adopt();
}

/**
 * @param {HTMLInputElement} input
 * @param {{max: number, value: number}} limits
 */
function bound(input, { max, value }) {
  input.min = "1";
  input.max = String(max);
  input.value = String(value);
}

/** @param {[string, string][]} rows */
function showTally(rows) {
  const table = byId("load-tally");
  table.querySelector("tbody")?.replaceChildren(
    ...rows.map(([name, value]) => element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, value))),
  );
  table.hidden = false;
}

/** @param {() => void} readMetrics */
function installSample(readMetrics) {
  const button = /** @type {HTMLButtonElement} */ (byId("sample"));
  button.addEventListener("click", () =>
    act("sample-result", button, async () => {
      const { accepted } = await call("POST", "api/metrics/batch", { body: samplePoints() });
      readMetrics();
      return `${counted(accepted, "point")} stored`;
    }),
  );
}
