/** A small line of the recent values of a number. Missing values are gaps in the line. */

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 100;
const HEIGHT = 24;

/**
 * Draw into an `<svg>`.
 * @param {Element} svg
 * @param {readonly (number | null)[]} values Evenly spaced, oldest first.
 * @param {object} [scale]
 * @param {boolean} [scale.fromZero] Whether the bottom is zero instead of the lowest value.
 * @param {number} [scale.slots] The number of values for the whole width. Fewer values are at the right end.
 */
export function drawSparkline(svg, values, { fromZero = false, slots = values.length } = {}) {
  const known = values.filter((value) => value !== null);
  const bottom = fromZero ? 0 : Math.min(...known);
  const span = Math.max(...known) - bottom || 1;
  const step = WIDTH / Math.max(1, slots - 1);
  const left = WIDTH - step * (values.length - 1);
  const isFlat = !fromZero && Math.max(...known) === bottom;

  /** @type {string[][]} */
  const runs = [[]];
  values.forEach((value, place) => {
    if (value === null) {
      runs.push([]);
      return;
    }
    const height = isFlat ? 0.5 : (value - bottom) / span;
    runs[runs.length - 1].push(`${(left + place * step).toFixed(2)},${(HEIGHT - 2 - height * (HEIGHT - 4)).toFixed(2)}`);
  });

  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  const drawn = runs.filter((run) => run.length > 0);
  svg.replaceChildren(
    ...drawn.filter((run) => run.length > 1).map((run) => path("fill", `M${xOf(run[0])},${HEIGHT}L${run.join("L")}L${xOf(run[run.length - 1])},${HEIGHT}Z`)),
    ...drawn.map((run) => path("stroke", `M${run.join("L")}${run.length === 1 ? "h0" : ""}`)),
  );
}

/** @param {string} point */
function xOf(point) {
  return point.split(",")[0];
}

/**
 * @param {string} kind
 * @param {string} outline
 */
function path(kind, outline) {
  const made = document.createElementNS(SVG, "path");
  made.setAttribute("class", kind);
  made.setAttribute("d", outline);
  return made;
}
