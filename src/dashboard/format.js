/** Formats numbers, sizes and times. An unknown value is a dash. */

const NOTHING = "–";

/**
 * @param {number | null | undefined} value
 * @returns {string} About three significant digits: 0, 0.12, 4.6, 12.3, 1,234, 56.1 k.
 */
export function number(value) {
  if (value == null || !Number.isFinite(value)) return NOTHING;
  const size = Math.abs(value);
  if (size >= 1e6) return `${fixed(value / 1e6, size >= 1e8 ? 0 : 1)} M`;
  if (size >= 1e4) return `${fixed(value / 1e3, size >= 1e5 ? 0 : 1)} k`;
  if (size >= 100) return fixed(value, 0);
  if (size >= 1) return fixed(value, 1);
  return fixed(value, 2);
}

/**
 * @param {number} value
 * @param {number} digits The most digits after the point.
 */
function fixed(value, digits) {
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

/**
 * @param {number | null | undefined} value A share, 0 to 1.
 * @returns {string}
 */
export function percent(value) {
  if (value == null) return NOTHING;
  const shown = value * 100;
  return `${fixed(shown, shown > 0 && shown < 10 ? 1 : 0)} %`;
}

/**
 * @param {number | null | undefined} value A time in milliseconds.
 * @returns {string} Such as "0.4 ms", "87 ms", "5 s".
 */
export function milliseconds(value) {
  if (value == null) return NOTHING;
  return value < 1000 ? `${number(value)} ms` : `${number(value / 1000)} s`;
}

/**
 * @param {number | null | undefined} value Seconds.
 * @returns {string} Such as "12 s", "3 min 05 s", "2 h 10 min".
 */
export function duration(value) {
  if (value == null) return NOTHING;
  const seconds = Math.max(0, Math.round(value));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${String(seconds % 60).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/**
 * @param {number | null | undefined} value
 * @returns {string}
 */
export function bytes(value) {
  if (value == null) return NOTHING;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let size = value;
  let unit = 0;
  for (; size >= 1024 && unit < units.length - 1; unit += 1) size /= 1024;
  return `${fixed(size, size < 100 ? 1 : 0)} ${units[unit]}`;
}

/**
 * @param {string | number} timestamp RFC 3339, or milliseconds since 1970.
 * @returns {string} The local time of day, to the second.
 */
export function timeOfDay(timestamp) {
  return new Date(timestamp).toLocaleTimeString("en-GB");
}

/**
 * @param {number} count
 * @param {string} noun In the singular.
 * @returns {string}
 */
export function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}
