/** The admin key: the operator enters it in a dialog, and this tab keeps it. */

import { byId } from "./dom.js";

const PLACE = "admin-key";

/** @returns {string | null} The key, or null if none was entered. */
export function adminKey() {
  return sessionStorage.getItem(PLACE);
}

/** @type {Promise<boolean> | null} The open dialog, which all simultaneous requests share. */
let asking = null;

/** @returns {boolean} Whether the dialog is open. Requests that need the key wait then. */
export function isAskingForKey() {
  return asking !== null;
}

/**
 * Ask for the key.
 * @param {string} reason Why a key is needed, in a sentence.
 * @returns {Promise<boolean>} Whether a key was entered.
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

/** Install the dialog, and the button that opens it. */
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
      // The browser sends no other characters in a header.
      input.setCustomValidity("A key is made of visible ASCII characters");
      input.reportValidity();
      return;
    }
    sessionStorage.setItem(PLACE, key);
    dialog.close("entered");
  });
  input.addEventListener("input", () => input.setCustomValidity(""));
}
