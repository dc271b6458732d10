/** Charts by Chart.js in the colours of the page, light or dark. There are no animations. */

import { number } from "./format.js";

/** Chart.js is loaded by a separate script, before any module runs. */
const { Chart } = /** @type {any} */ (window);

/** Lines differ in their strokes as well as in their colours. */
const DASHES = [[], [6, 4], [2, 3]];

/** The least time that a new chart shows, so that its first points do not look like a steep rise. */
const SHORTEST_MS = 60_000;

/** @type {Map<string, string>} */
const tokens = new Map();
/** @type {Set<any>} */
const charts = new Set();

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  tokens.clear();
  for (const chart of charts) chart.update();
});

/**
 * Return the current value of a custom property of tokens.css.
 * @param {string} name
 */
function token(name) {
  let value = tokens.get(name);
  if (value === undefined) {
    value = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    tokens.set(name, value);
  }
  return value;
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {object[]} datasets
 * @param {object} [more] Options in addition to those of every chart.
 */
function makeChart(canvas, datasets, more = {}) {
  const chart = new Chart(canvas, {
    type: "line",
    data: { datasets },
    options: {
      animation: false,
      parsing: false,
      normalized: true,
      maintainAspectRatio: false,
      interaction: { mode: "index", intersect: false },
      elements: { point: { radius: 0, hitRadius: 8, hoverRadius: 3 }, line: { borderJoinStyle: "round" } },
      plugins: {
        legend: { display: false },
        tooltip: {
          backgroundColor: () => token("--text"),
          titleColor: () => token("--surface"),
          bodyColor: () => token("--surface"),
          padding: 10,
          cornerRadius: 8,
          displayColors: false,
          bodyFont: { family: token("--font") },
          titleFont: { family: token("--font"), weight: "500" },
          filter: (/** @type {any} */ item) => !item.dataset.isEdge,
        },
      },
      scales: {
        x: {
          type: "time",
          time: { tooltipFormat: "d MMM, HH:mm:ss", displayFormats: { second: "HH:mm:ss", minute: "HH:mm", hour: "HH:mm" } },
          grid: { display: false },
          border: { color: () => token("--edge") },
          ticks: { ...ticks(), maxRotation: 0, autoSkipPadding: 24 },
        },
        y: {
          grid: { color: () => token("--grid"), drawTicks: false },
          border: { display: false },
          ticks: { ...ticks(), maxTicksLimit: 5, padding: 8, callback: (/** @type {number} */ value) => number(value) },
        },
      },
      ...more,
    },
  });
  charts.add(chart);
  return chart;
}

function ticks() {
  return { color: () => token("--quiet"), font: { family: token("--font"), size: 11 } };
}

/**
 * @param {string} label
 * @param {number} line The number of the stroke, 1 to 3.
 */
function lineStyle(label, line) {
  return {
    label,
    data: [],
    borderColor: () => token(`--line-${line}`),
    borderDash: DASHES[line - 1],
    borderWidth: 2,
  };
}

/**
 * A chart of the last minutes that grows at its right end.
 * @param {HTMLCanvasElement} canvas
 * @param {string[]} labels One to three lines.
 * @param {number} seconds The time that the chart covers.
 * @returns {(at: number, values: (number | null)[]) => void} Adds the values of a Unix time in milliseconds.
 */
export function liveChart(canvas, labels, seconds) {
  const chart = makeChart(canvas, labels.map((label, index) => lineStyle(label, index + 1)));
  chart.options.scales.y.beginAtZero = true;
  chart.options.scales.y.suggestedMax = 1;
  chart.options.scales.x.time.minUnit = "minute";
  let first = 0;
  return (at, values) => {
    first ||= at;
    const oldest = Math.max(at - seconds * 1000, Math.min(first, at - SHORTEST_MS));
    chart.data.datasets.forEach((/** @type {any} */ dataset, /** @type {number} */ index) => {
      while (dataset.data.length && dataset.data[0].x < oldest) dataset.data.shift();
      dataset.data.push({ x: at, y: values[index] });
    });
    chart.options.scales.x.min = oldest;
    chart.options.scales.x.max = at;
    chart.update();
  };
}

/**
 * @typedef {object} Step A step of a series, in the form of the API.
 * @property {string} time
 * @property {number} count
 * @property {number | null} average
 * @property {number | null} min
 * @property {number | null} max
 */

/**
 * A chart of a series: a line of the averages, and a band between the lowest and the highest values.
 * @param {HTMLCanvasElement} canvas
 * @returns {(steps: Step[]) => void} Replaces the shown steps.
 */
export function seriesChart(canvas) {
  const edge = { borderWidth: 0, isEdge: true, data: [], pointHoverRadius: 0 };
  const chart = makeChart(canvas, [
    { ...lineStyle("Average", 1), pointRadius: alone, pointBackgroundColor: () => token("--line-1") },
    { ...edge, label: "Lowest" },
    { ...edge, label: "Highest", fill: "-1", backgroundColor: () => token("--band") },
  ]);
  /** @type {Step[]} */
  let shown = [];
  chart.options.plugins.tooltip.callbacks = {
    label: (/** @type {any} */ item) => {
      const step = shown[item.dataIndex];
      return [
        `average ${number(step.average)}`,
        `lowest ${number(step.min)}, highest ${number(step.max)}`,
        `from ${number(step.count)}`,
      ];
    },
  };
  return (steps) => {
    shown = steps;
    const times = steps.map((step) => Date.parse(step.time));
    const [average, lowest, highest] = chart.data.datasets;
    average.data = steps.map((step, index) => ({ x: times[index], y: step.average }));
    lowest.data = steps.map((step, index) => ({ x: times[index], y: step.min }));
    highest.data = steps.map((step, index) => ({ x: times[index], y: step.max }));
    chart.update();
  };
}

/**
 * Return the radius of a point. Only a point without neighbours is drawn, because it is not part of a line.
 * @param {any} context
 */
function alone({ dataset, dataIndex }) {
  const has = (/** @type {number} */ place) => dataset.data[place]?.y != null;
  return has(dataIndex) && !has(dataIndex - 1) && !has(dataIndex + 1) ? 2.5 : 0;
}
