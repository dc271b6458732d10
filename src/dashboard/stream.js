/**
 * Server-sent events, read with `fetch`. An `EventSource` reports neither the reason of a rejection (a spent
 * quota, too many followers) nor the comments that keep the connection open. After the page was hidden, it could
 * not continue after the last event.
 */

import { ApiError, ask, errorOf } from "./api.js";
import { repeat } from "./poll.js";

/** The server sends a comment at least every 15 s. */
const SILENCE_MS = 40_000;
const PAUSE_SECONDS = 3;

/**
 * Follow the events while the page is visible. Connect again after each interruption.
 * @param {object} to
 * @param {(event: Record<string, any>) => void} to.onEvent Called once for each event, oldest first.
 * @param {(state: "live" | "disconnected", why: string) => void} to.onState Called with the state of the connection and a reason.
 */
export function followEvents({ onEvent, onState }) {
  let last = "";
  let notBefore = 0;

  repeat(PAUSE_SECONDS, async (signal) => {
    if (Date.now() < notBefore) return;
    try {
      /** @type {Record<string, string>} */
      const headers = last ? { "Last-Event-ID": last } : {};
      const answer = await ask("GET", "api/events", { headers, signal });
      if (!answer.ok || !answer.body) throw await errorOf(answer);
      onState("live", "");
      for await (const message of messages(answer.body)) {
        last = message.id || last;
        onEvent(JSON.parse(message.data));
      }
      onState("disconnected", "reconnecting");
    } catch (error) {
      if (signal.aborted) throw error;
      const wait = (error instanceof ApiError && error.retryAfter) || PAUSE_SECONDS;
      notBefore = Date.now() + Math.min(wait, 60) * 1000;
      onState("disconnected", error instanceof ApiError ? error.message : "Reconnecting");
    }
  });
}

/**
 * Read the messages of an event stream (WHATWG HTML, "Interpreting an event stream").
 * @param {ReadableStream<BufferSource>} body
 * @returns {AsyncGenerator<{id: string, data: string}>}
 */
async function* messages(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await withinSilence(reader);
      if (done) return;
      const blocks = (rest + value).split(/\r?\n\r?\n/);
      rest = blocks.pop() ?? "";
      for (const block of blocks) {
        const message = parse(block);
        if (message.data) yield message;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * @param {ReadableStreamDefaultReader<string>} reader
 * @returns {Promise<ReadableStreamReadResult<string>>}
 */
async function withinSilence(reader) {
  let timer = 0;
  const silence = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("silence")), SILENCE_MS);
  });
  try {
    return await Promise.race([reader.read(), silence]);
  } finally {
    clearTimeout(timer);
  }
}

/** @param {string} block */
function parse(block) {
  const data = [];
  let id = "";
  for (const line of block.split(/\r?\n/)) {
    const [, field, value] = /^(\w+): ?(.*)$/.exec(line) ?? [];
    if (field === "data") data.push(value);
    if (field === "id") id = value;
  }
  return { id, data: data.join("\n") };
}
