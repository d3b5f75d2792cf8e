// From what is looked for to what is shown. While somebody types, one question is on its way at a time: the next one
// goes out with its answer, and asks for what has been typed by then. So no key waits for a timer, and none for answers
// that nobody needs any more.

import * as api from "./api.js";
import { byId } from "./elements.js";
import { number, pictures } from "./format.js";
import * as grid from "./grid.js";
import { fileOf } from "./picture.js";
import { change, hasQuery, NO_FILTERS, numFilters, state } from "./state.js";

const PATIENCE_MS = 150; // after which an answer is not waited for
const REFINE_MS = 350; // after the last key
const PAGE = 60;
const MOST = 20_000; // hits that the server counts off
let refining = 0;
let turn = 0; // of the questions that typing asks
let isOnItsWay = false;
let isBehind = false; // something was typed since
let askedAt = 0;
let asking = new AbortController();
let isLoading = false;
let answered = null; // what the grid shows: { query, total, threshold, generation }
let lastMessage = "";

export const generation = () => answered?.generation ?? 0;

// Asks for what is typed so far, quickly; once nothing more is typed, thoroughly.
export async function whileTyping() {
  clearTimeout(refining);
  if (isOnItsWay && performance.now() - askedAt < PATIENCE_MS) {
    isBehind = true;
    return;
  }
  const mine = ++turn;
  isOnItsWay = true;
  isBehind = false;
  askedAt = performance.now();
  await now({ quick: true });
  if (mine !== turn) return;
  isOnItsWay = false;
  if (isBehind) whileTyping();
  else refining = setTimeout(() => hasQuery() && now({ keep: true }), REFINE_MS);
}

// Asks now. `keep` leaves the place on the page where it is: the same question, asked again.
export async function now({ keep = false, quick = false } = {}) {
  clearTimeout(refining);
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  const asked = state();
  isLoading = true;
  byId("grid").setAttribute("aria-busy", "true");
  try {
    const num = keep ? Math.max(PAGE, Math.min(500, grid.length())) : PAGE;
    const found = await first(asked, { signal, num, quick });
    if (signal.aborted || (quick && isBehind)) return;
    answered = found;
    grid.show(found.items, { whole: found.whole, keep });
    describe(asked, found);
    document.dispatchEvent(new CustomEvent("pocketclip-results", { detail: { q: asked.q } }));
  } catch (error) {
    if (!signal.aborted) trouble(error);
  } finally {
    if (!signal.aborted) {
      isLoading = false;
      byId("grid").removeAttribute("aria-busy");
    }
  }
}

// The next page, when the end comes near.
export async function more() {
  if (isLoading || !answered || answered.whole) return;
  isLoading = true;
  const { signal } = asking;
  const asked = state();
  try {
    if (answered.isQuery) {
      const page = await api.search(asked, { file: fileOf(asked.picture), offset: grid.length(), k: PAGE, signal });
      answered.whole = page.hits.length < PAGE || grid.length() + PAGE >= MOST;
      grid.append(page.hits, answered);
    } else {
      const page = await api.items(asked, { after: grid.all().at(-1)?.id ?? 0, limit: 100, signal });
      answered.whole = page.items.length < 100;
      grid.append(page.items, answered);
    }
    if (!signal.aborted) describe(asked, answered);
  } catch (error) {
    if (!signal.aborted) {
      answered.whole = true;
      if (error.status === 404) now({ keep: true });
    }
  } finally {
    isLoading = false;
  }
}

async function first(asked, { signal, num, quick }) {
  if (hasQuery(asked)) {
    const found = await api.search(asked, { file: fileOf(asked.picture), k: num, quick, signal });
    return {
      items: found.hits, whole: found.hits.length < num, isQuery: true, total: found.num_candidates,
      threshold: found.threshold, nothing: found.nothing, generation: found.generation,
    };
  }
  const found = await api.items(asked, { limit: Math.max(100, num), signal });
  const whole = found.items.length < Math.max(100, num);
  return { items: found.items, whole, isQuery: false, total: found.total, threshold: null, generation: found.generation };
}

function describe(asked, found) {
  const { isQuery, total, threshold } = found;
  const shown = grid.length();
  byId("tuning").hidden = !isQuery;
  byId("weight-tool").hidden = !(asked.q.trim() && (asked.like || asked.picture));
  byId("auto").checked = asked.min === "auto";
  const slider = byId("min-score");
  const least = asked.min === "auto" ? (threshold ?? 0) : asked.min;
  if (document.activeElement !== slider) slider.value = least;
  byId("min-score-value").value = least ? least.toFixed(2) : "all";
  let text = "";
  if (!isQuery) text = numFilters(asked) ? `${pictures(total)} with these filters` : shown ? pictures(total) : "";
  else if (shown) text = found.whole ? `${pictures(shown)} of ${number(total)}` : `The nearest of ${pictures(total)}`;
  if (byId("summary").textContent !== text) byId("summary").textContent = text;
  if (shown) message("");
  else if (isQuery && total) nothing(asked);
  else if (numFilters(asked)) message("No picture passes the filters", "", { label: "Clear filters", act: () => change(NO_FILTERS) });
  else message("No pictures yet", "Index a folder; pictures appear here while it is read.", { code: "pocketclip index PICTURES" });
}

function nothing(asked) {
  const what = asked.q.trim() ? `Nothing here looks like “${asked.q.trim()}”` : "Nothing here looks like it";
  const hint = numFilters(asked) ? "The filters leave some pictures out." : "The nearest pictures are far from it.";
  message(what, hint, asked.min === 0 ? {} : { label: "Show the nearest anyway", act: () => change({ min: 0 }) });
}

function trouble(error) {
  grid.show([], { whole: true });
  answered = null;
  byId("summary").textContent = "";
  const again = { label: "Try again", act: () => now() };
  if (error instanceof api.Refused) {
    if (error.status === 429) setTimeout(() => now(), 1000 * (error.wait || 1));
    const title = { 401: "A token is needed", 429: "One moment" }[error.status] ?? "That did not work";
    message(title, sentence(error.message), again);
  } else {
    message("The server cannot be reached", "Is pocketclip serve still running? The page goes on by itself once it is back.", again);
  }
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

function message(title, text = "", { label = "", act = null, code = "" } = {}) {
  const box = byId("message");
  box.hidden = !title;
  const key = title + text + label;
  if (!title || key === lastMessage) {
    lastMessage = key;
    if (act) byId("message-button").onclick = act;
    return;
  }
  lastMessage = key;
  byId("message-title").textContent = title;
  byId("message-text").textContent = text;
  byId("message-code").textContent = code;
  byId("message-code").hidden = !code;
  const button = byId("message-button");
  button.hidden = !label;
  button.textContent = label;
  button.onclick = act;
}
