/** Requests to the API, by addresses relative to the page, so that the page works below any path. */

import { adminKey, askForKey } from "./admin_key.js";

const TIMEOUT_MS = 5000;

/** The API answered with an error, or not at all. The page may show the message. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {number} status 0 where there was no answer.
   * @param {number | null} retryAfter Seconds.
   */
  constructor(message, status, retryAfter = null) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** The operator closed the dialog that asked for the key. */
export class Dismissed extends Error {}

/**
 * @typedef {object} Wish
 * @property {unknown} [body] Sent as JSON.
 * @property {Record<string, string>} [headers]
 * @property {AbortSignal} [signal]
 * @property {number} [timeoutMs] How long the answer's head may take; 0 waits for ever.
 */

/**
 * Ask, and return the answer whatever its status.
 * @param {string} method
 * @param {string} path Without a slash in front.
 * @param {Wish} [wish]
 * @returns {Promise<Response>}
 * @throws {ApiError} There is no answer.
 */
export async function ask(method, path, wish = {}) {
  const { body, headers = {}, signal, timeoutMs = TIMEOUT_MS } = wish;
  const late = new AbortController();
  const timer = timeoutMs ? setTimeout(() => late.abort(), timeoutMs) : undefined;
  try {
    return await fetch(new URL(path, document.baseURI), {
      method,
      cache: "no-store",
      signal: signal ? AbortSignal.any([signal, late.signal]) : late.signal,
      headers: body === undefined ? headers : { ...headers, "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError("The API does not answer", 0);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Ask, and return what the JSON of a good answer says.
 * @param {string} method
 * @param {string} path
 * @param {Wish} [wish]
 * @returns {Promise<any>}
 * @throws {ApiError}
 */
export async function call(method, path, wish) {
  const answer = await ask(method, path, wish);
  if (!answer.ok) throw await errorOf(answer);
  return answer.json();
}

/**
 * Return what an answer that is not a good one says: the message is the problem document's.
 * @param {Response} answer
 * @returns {Promise<ApiError>}
 */
export async function errorOf(answer) {
  const retryAfter = answer.headers.get("Retry-After");
  const said = await answer.json().catch(() => null);
  return new ApiError(
    said?.detail ?? `The API answered ${answer.status}`,
    answer.status,
    retryAfter === null ? null : Number(retryAfter),
  );
}

/**
 * @param {number} status Of the rejection: 403 if the service has no key, else 401.
 * @param {boolean} hasKey Whether a key was sent.
 * @returns {string} Why the dialog asks for a key.
 */
function reasonForKey(status, hasKey) {
  if (status === 403) {
    return "The service has no admin key, so the controls work only on its own machine. Set ADMIN_API_KEY, restart the service, and enter the key here.";
  }
  return hasKey ? "The service rejected that key." : "This needs the service's admin key.";
}

/**
 * Send an admin request with the key of this tab. Where the key is missing or wrong, one dialog asks for it.
 * @param {string} method
 * @param {string} path
 * @param {Wish} [wish]
 * @returns {Promise<any>}
 * @throws {ApiError | Dismissed}
 */
export async function callAsAdmin(method, path, wish) {
  for (;;) {
    const key = adminKey();
    try {
      return await call(method, path, { ...wish, headers: key === null ? {} : { "X-API-Key": key } });
    } catch (error) {
      if (!(error instanceof ApiError) || (error.status !== 401 && error.status !== 403)) throw error;
      if (!(await askForKey(reasonForKey(error.status, key !== null)))) {
        throw new Dismissed("Nothing was changed: there is no admin key");
      }
    }
  }
}
