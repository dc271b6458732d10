/** Functions that change the page. All data is inserted as text, never as markup. */

/**
 * Return the element with an id, which must exist.
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
 * Show a text. The page changes only if the text differs.
 * @param {string} id
 * @param {string} text
 */
export function show(id, text) {
  const place = byId(id);
  if (place.textContent !== text) place.textContent = text;
}

/** @typedef {"ok" | "warning" | "critical" | "unknown"} Level */

/**
 * Show a word with a level. The level has a sign as well as a colour.
 * @param {string} id
 * @param {Level} level
 * @param {string} text
 */
export function showChip(id, level, text) {
  byId(id).dataset.level = level;
  show(id, text);
}

/**
 * Show the result of an action below its control. Assistive technology reads the result out.
 * @param {string} id
 * @param {"ok" | "critical"} level
 * @param {string} text
 */
export function showResult(id, level, text) {
  byId(id).dataset.level = level;
  show(id, `${level === "ok" ? "✓" : "✕"} ${text}`);
}
