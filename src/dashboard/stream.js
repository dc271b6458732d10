/**
 * Server-sent events, read by `fetch`. An `EventSource` tells neither why it was refused (a spent quota, every
 * place taken) nor of the comments that keep the line alive, and we want to know both; and one that is
 * closed while the page is hidden could not go on after the last event it saw.
 */

import { ApiError, ask, errorOf } from "./api.js";
import { repeat } from "./poll.js";

/** The server says something every 15 s, were it a comment. */
const SILENCE_MS = 40_000;
const PAUSE_SECONDS = 3;

/**
 * Follow the events for as long as the page is seen, coming back after each break.
 * @param {object} to
 * @param {(event: Record<string, any>) => void} to.onEvent Told of each event once, oldest first.
 * @param {(state: "live" | "away", why: string) => void} to.onState Told when the line stands, and why not.
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
      onState("away", "reconnecting");
    } catch (error) {
      if (signal.aborted) throw error;
      const wait = (error instanceof ApiError && error.retryAfter) || PAUSE_SECONDS;
      notBefore = Date.now() + Math.min(wait, 60) * 1000;
      onState("away", error instanceof ApiError ? error.message : "Reconnecting");
    }
  });
}

/**
 * Read the messages out of an event stream (WHATWG HTML, "Interpreting an event stream").
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
