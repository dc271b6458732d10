/** What the page is made of. Text goes in as text: nothing here, or elsewhere, reads markup out of data. */

/**
 * Return the element with an id. That it exists is the page's promise.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/**
 * Return a new element.
 * @param {string} tag
 * @param {Record<string, string>} [attributes]
 * @param {...(Node|string)} children Strings become text.
 * @returns {HTMLElement}
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/**
 * Show a text, and touch the page only where it is another.
 * @param {string} id
 * @param {string} text
 */
export function show(id, text) {
  const place = byId(id);
  if (place.textContent !== text) place.textContent = text;
}

/** @typedef {"ok" | "warning" | "critical" | "unknown"} Level */

/**
 * Show a word and how serious it is. The level has a sign as well as a colour.
 * @param {string} id
 * @param {Level} level
 * @param {string} text
 */
export function showChip(id, level, text) {
  byId(id).dataset.level = level;
  show(id, text);
}

/**
 * Show what became of an action, under the control that began it. Assistive technology reads it out.
 * @param {string} id
 * @param {"ok" | "critical"} level
 * @param {string} text
 */
export function showResult(id, level, text) {
  byId(id).dataset.level = level;
  show(id, `${level === "ok" ? "✓" : "✕"} ${text}`);
}
