/** Requests to the API. The URLs are relative to the page, so that the page works below any path. */

import { adminKey, askForKey } from "./admin_key.js";

const TIMEOUT_MS = 5000;

/** An error response of the API, or no response. The page can show the message. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {number} status The status; 0 without a response.
   * @param {number | null} retryAfter Seconds.
   */
  constructor(message, status, retryAfter = null) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** The operator closed the key dialog without a key. */
export class Dismissed extends Error {}

/**
 * @typedef {object} RequestOptions
 * @property {unknown} [body] Sent as JSON.
 * @property {Record<string, string>} [headers]
 * @property {AbortSignal} [signal]
 * @property {number} [timeoutMs] The longest time until the head of the response; 0 is no limit.
 */

/**
 * Send a request, and return the response with any status.
 * @param {string} method
 * @param {string} path Without a slash in front.
 * @param {RequestOptions} [options]
 * @returns {Promise<Response>}
 * @throws {ApiError} There is no response.
 */
export async function ask(method, path, options = {}) {
  const { body, headers = {}, signal, timeoutMs = TIMEOUT_MS } = options;
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
 * Send a request, and return the JSON of a successful response.
 * @param {string} method
 * @param {string} path
 * @param {RequestOptions} [options]
 * @returns {Promise<any>}
 * @throws {ApiError}
 */
export async function call(method, path, options) {
  const answer = await ask(method, path, options);
  if (!answer.ok) throw await errorOf(answer);
  return answer.json();
}

/**
 * Return the error of a response. Its message comes from the problem document.
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
 * @param {number} status The status of the rejection: 403 if the service has no key, else 401.
 * @param {boolean} hasKey Whether a key was sent.
 * @returns {string} The reason that the dialog shows.
 */
function reasonForKey(status, hasKey) {
  if (status === 403) {
    return "The service has no admin key, so the controls work only on its own machine. Set ADMIN_API_KEY, restart the service, and enter the key here.";
  }
  return hasKey ? "The service rejected that key." : "This needs the service's admin key.";
}

/**
 * Send an admin request with the key of this tab. If the key is missing or wrong, a dialog opens.
 * @param {string} method
 * @param {string} path
 * @param {RequestOptions} [options]
 * @returns {Promise<any>}
 * @throws {ApiError | Dismissed}
 */
export async function callAsAdmin(method, path, options) {
  for (;;) {
    const key = adminKey();
    try {
      return await call(method, path, { ...options, headers: key === null ? {} : { "X-API-Key": key } });
    } catch (error) {
      if (!(error instanceof ApiError) || (error.status !== 401 && error.status !== 403)) throw error;
      if (!(await askForKey(reasonForKey(error.status, key !== null)))) {
        throw new Dismissed("Nothing was changed: there is no admin key");
      }
    }
  }
}
