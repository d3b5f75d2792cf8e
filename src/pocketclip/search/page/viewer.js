// One picture, large, with all that is known of it.

import * as api from "./api.js";
import * as crop from "./crop.js";
import { byId, element, icon } from "./elements.js";
import { bytes, clock, date, number, place } from "./format.js";
import * as grid from "./grid.js";
import { change, state } from "./state.js";
import * as selection from "./selection.js";

const NEAR_KM = 10;
const SMALLEST_PX = 420;
const dialog = byId("viewer");
let shown = null; // details of the item
let asking = new AbortController();

export const isOpen = () => dialog.open;
export const item = () => shown;

// Follows the state: opens, goes on, closes.
export async function follow(now) {
  if (!now.item) {
    close();
    return;
  }
  if (shown?.id === now.item && dialog.open) return;
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  crop.stop();
  const known = grid.all().find((one) => one.id === now.item);
  if (known) preview(known);
  if (!dialog.open) dialog.showModal();
  try {
    const details = await api.details(now.item, signal);
    if (signal.aborted) return;
    if (!known) preview(details);
    fill(details, known?.score);
  } catch (error) {
    if (signal.aborted) return;
    byId("viewer-name").textContent = error.message;
    byId("facts").replaceChildren();
  }
  steps();
}

function close() {
  asking.abort();
  crop.stop();
  byId("shown").replaceChildren(); // a video falls silent
  const index = shown ? grid.indexOf(shown.id) : -1;
  shown = null;
  if (!dialog.open) return;
  dialog.close();
  if (index >= 0) grid.focus(index);
}

export const leave = () => change({ item: null });

export function go(step) {
  const index = grid.indexOf(state().item) + step;
  const next = grid.all()[index];
  if (next && grid.indexOf(state().item) >= 0) change({ item: next.id }, { replace: true });
}

export function moreLike(id) {
  change({ like: id, crop: null, picture: null, q: "", item: null, min: state().min });
}

export function startCrop() {
  const picture = byId("shown").querySelector("img.base");
  if (!shown || !picture) return;
  const video = byId("shown").querySelector("video");
  video?.pause();
  if (video) video.hidden = true; // the moment that was found is beneath it
  const id = shown.id;
  crop.start(byId("shown").querySelector("img.sharp.there") ?? picture, (part) => change({ like: id, crop: part, picture: null, q: "", item: null }));
}

// What the grid knows already, at once.
function preview(known) {
  shown = null;
  byId("viewer-name").textContent = known.name;
  byId("viewer-caption").hidden = true;
  byId("facts").replaceChildren();
  const base = element("img", { className: "base", alt: known.name, src: known.thumbnail.slice(1) });
  fit(base, known);
  byId("shown").replaceChildren(base);
  steps();
}

// The thumbnail is as large as the picture will be: nothing moves when that arrives.
function fit(picture, { width, height }) {
  const larger = Math.max(1, SMALLEST_PX / Math.max(width, height)); // an icon is looked at, too
  picture.style.aspectRatio = `${width} / ${height}`;
  picture.style.width = `min(${Math.round(width * larger)}px, 100cqw, calc(100cqh * ${width / height}))`;
}

function fill(details, score) {
  shown = details;
  byId("viewer-name").textContent = details.name;
  byId("viewer-caption").textContent = details.caption ?? "";
  byId("viewer-caption").hidden = !details.caption;
  byId("download").href = `api/items/${details.id}/file?download=true`;
  byId("download").download = details.name;
  selection.showIn(byId("viewer-select"), details.id);
  byId("facts").replaceChildren(...facts(details, score));
  if (details.kind === "video") video(details);
  else sharp(details);
}

function sharp(details) {
  const picture = element("img", { className: "sharp", alt: "" });
  fit(picture, details);
  picture.addEventListener("load", () => picture.classList.add("there"));
  picture.addEventListener("error", () => {
    picture.remove();
    excuse("The original cannot be shown; this is its thumbnail.");
  });
  picture.src = details.file.slice(1);
  byId("shown").append(picture);
}

function video(details) {
  const film = element("video", { controls: true, playsInline: true, preload: "metadata", "aria-label": details.name });
  film.addEventListener("loadedmetadata", () => { film.currentTime = details.at_s ?? 0; }, { once: true });
  film.addEventListener("error", () => {
    film.remove();
    excuse(`This browser cannot play it; this is the moment at ${clock(details.at_s ?? 0)}.`);
  });
  fit(film, details);
  film.src = details.file.slice(1);
  byId("shown").append(film);
}

function excuse(text) {
  byId("shown").append(element("p", { className: "excuse", textContent: text }));
}

function facts(details, score) {
  const rows = [];
  const fact = (name, ...values) => rows.push(element("div", {}, element("dt", { textContent: name }), ...values.map((value) => element("dd", {}, value))));
  if (score != null) fact("Similarity", score.toFixed(3));
  if (details.taken) fact("Taken", date(details.taken));
  else fact("Last changed", date(`${details.modified.slice(0, 19)}Z`));
  if (details.at_s != null) fact("Moment", clock(details.at_s));
  if (details.latitude != null && details.longitude != null) {
    const around = element("button", { type: "button", className: "plain", textContent: "pictures from around here" });
    around.addEventListener("click", () => change({ near: `${details.latitude.toFixed(5)},${details.longitude.toFixed(5)},${NEAR_KM}`, item: null }));
    fact("Place", place(details.latitude, details.longitude), around);
  }
  fact("Size", `${number(details.width)} × ${number(details.height)} px, ${bytes(details.num_bytes)}`);
  if (details.tags.length) fact("Tags", tags(details.tags));
  fact(details.places.length > 1 ? "Files" : "File", ...details.places.map(path));
  return rows;
}

function tags(given) {
  return element("div", { className: "tags" }, ...given.map(({ tag, score }) => {
    const button = element("button", { type: "button", className: "pill", textContent: tag, title: `fits with ${score.toFixed(2)}` });
    button.addEventListener("click", () => change({ tags: [...new Set([...state().tags, tag])], item: null }));
    return button;
  }));
}

function path(text) {
  const copy = element("button", { type: "button", className: "quiet", "aria-label": "Copy the path", title: "Copy" }, icon("copy"));
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      copy.replaceChildren(icon("check"));
      setTimeout(() => copy.replaceChildren(icon("copy")), 1500);
    } catch { /* no clipboard without a safe origin: the path can be marked by hand */ }
  });
  return element("div", { className: "path" }, element("code", { textContent: text }), copy);
}

export function steps() {
  const index = grid.indexOf(state().item);
  byId("previous").disabled = index <= 0;
  byId("next").disabled = index < 0 || index >= grid.length() - 1;
}

export function listen() {
  byId("close").addEventListener("click", leave);
  byId("previous").addEventListener("click", () => go(-1));
  byId("next").addEventListener("click", () => go(1));
  byId("more-like").addEventListener("click", () => shown && moreLike(shown.id));
  byId("crop").addEventListener("click", startCrop);
  byId("crop-search").addEventListener("click", () => crop.search());
  byId("crop-cancel").addEventListener("click", () => endCrop());
  byId("viewer-select").addEventListener("click", () => {
    if (!shown) return;
    const index = grid.indexOf(shown.id);
    selection.toggle(index >= 0 ? grid.all()[index] : shown);
    selection.showIn(byId("viewer-select"), shown.id);
  });
  dialog.addEventListener("cancel", (event) => { // Escape
    event.preventDefault();
    if (crop.isOn()) endCrop();
    else leave();
  });
}

function endCrop() {
  crop.stop();
  const film = byId("shown").querySelector("video");
  if (film) film.hidden = false;
  byId("crop").focus();
}
