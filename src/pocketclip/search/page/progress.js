// What the server tells by itself: indexing goes on, the index has changed, the server has gone and come back.

import { byId } from "./elements.js";
import { number } from "./format.js";

const LONGEST_WAIT_MS = 15_000;
let stream = null;
let wait = 1000;
let retry = 0;
let hadTrouble = false;

// `changed` is called with each status, `back` when the server answers again after it did not.
export function listen({ changed, back }) {
  const open = () => {
    clearTimeout(retry);
    stream?.close();
    stream = new EventSource("api/events");
    stream.addEventListener("status", (event) => {
      wait = 1000;
      const status = JSON.parse(event.data);
      show(status);
      if (hadTrouble) back();
      hadTrouble = false;
      changed(status);
    });
    stream.addEventListener("error", () => {
      stream.close();
      hadTrouble = true;
      say("The server cannot be reached: trying again", true);
      retry = setTimeout(open, wait);
      wait = Math.min(wait * 1.7, LONGEST_WAIT_MS);
    });
  };
  const close = () => {
    clearTimeout(retry);
    stream?.close();
    stream = null;
  };
  // A page that nobody sees holds no connection: browsers have six for a server, for all its pages together.
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  if (!document.hidden) open();
}

function show(status) {
  if (status.watch_problem) say(`Indexing has stopped: ${status.watch_problem}`, true);
  else if (status.is_indexing) {
    const rate = status.items_per_s >= 1 ? ` · ${number(Math.round(status.items_per_s))} a second` : "";
    say(`Indexing · ${number(status.num_items)} pictures${rate}`, false);
  } else byId("progress").hidden = true;
}

function say(text, isTrouble) {
  byId("progress").hidden = false;
  byId("progress").classList.toggle("trouble", isTrouble);
  byId("progress-text").textContent = text;
}
