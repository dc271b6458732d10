/** The admin key: asked for in a dialog, kept for this tab. */

import { byId } from "./dom.js";

const PLACE = "admin-key";

/** @returns {string | null} The key, where one has been entered. */
export function adminKey() {
  return sessionStorage.getItem(PLACE);
}

/** @type {Promise<boolean> | null} One dialog serves all who ask at the same time. */
let asking = null;

/** @returns {boolean} Whether the dialog is open, and whatever needs the key waits. */
export function isAskingForKey() {
  return asking !== null;
}

/**
 * Ask for the key.
 * @param {string} reason Why, in a sentence.
 * @returns {Promise<boolean>} Whether one was entered.
 */
export function askForKey(reason) {
  asking ??= openDialog(reason).finally(() => {
    asking = null;
  });
  return asking;
}

/**
 * @param {string} reason
 * @returns {Promise<boolean>}
 */
function openDialog(reason) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("key-dialog"));
  const input = /** @type {HTMLInputElement} */ (byId("key-input"));
  byId("key-reason").textContent = reason;
  byId("key-forget").hidden = adminKey() === null;
  input.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  input.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "entered"), { once: true });
  });
}

/** Have the dialog work, and the button that opens it unasked. */
export function installAdminKey() {
  const dialog = /** @type {HTMLDialogElement} */ (byId("key-dialog"));
  const input = /** @type {HTMLInputElement} */ (byId("key-input"));
  byId("key-button").addEventListener("click", () => {
    askForKey(adminKey() === null ? "The controls will send it." : "This tab keeps a key. Enter another, or forget it.");
  });
  byId("key-cancel").addEventListener("click", () => dialog.close());
  byId("key-forget").addEventListener("click", () => {
    sessionStorage.removeItem(PLACE);
    dialog.close();
  });
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const key = input.value.trim();
    if (!/^[\x21-\x7e]+( *[\x21-\x7e]+)*$/.test(key)) {
      // A header can carry no other; the browser would refuse to send it.
      input.setCustomValidity("A key is made of visible ASCII characters");
      input.reportValidity();
      return;
    }
    sessionStorage.setItem(PLACE, key);
    dialog.close("entered");
  });
  input.addEventListener("input", () => input.setCustomValidity(""));
}
