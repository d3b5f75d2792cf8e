// What is looked for and what is open, kept in the address: the back button works, addresses can be kept and sent.

const DEFAULTS = {
  q: "", like: null, crop: null, picture: null, weight: 0.5, min: "auto", unique: false,
  from: "", to: "", folder: "", px: "", kinds: [], tags: [], near: null, item: null,
};
const listeners = [];
let current = read();
let isTyping = false;
let pause = 0;

export const state = () => current;
export const onChange = (listener) => listeners.push(listener);
export const hasQuery = (now = current) => Boolean(now.q.trim() || now.like || now.picture);
export const numFilters = (now = current) =>
  ["from", "to", "folder", "px", "near"].filter((name) => now[name]).length + now.kinds.length + now.tags.length;
export const NO_FILTERS = { from: "", to: "", folder: "", px: "", kinds: [], tags: [], near: null };

// Changes some of it. A step of its own in the history, unless `replace`.
export function change(patch, { replace = false } = {}) {
  const before = current;
  current = { ...current, ...patch };
  const address = write(current);
  if (replace || address === write(before)) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  tell(before);
}

// Changes by typing: one step in the history until there is a pause.
export function type(patch) {
  change(patch, { replace: isTyping });
  isTyping = true;
  clearTimeout(pause);
  pause = setTimeout(settle, 1200);
}

export function settle() {
  clearTimeout(pause);
  isTyping = false;
}

addEventListener("popstate", () => {
  settle();
  const before = current;
  current = read();
  tell(before);
});

function tell(before) {
  for (const listener of listeners) listener(current, before);
}

function read() {
  const given = new URLSearchParams(location.search);
  const text = (name) => given.get(name) ?? "";
  const id = (name) => (/^[1-9]\d{0,15}$/.test(text(name)) ? Number(text(name)) : null);
  const fraction = (name, other) => (/^(0|1|0?\.\d+)$/.test(text(name)) ? Number(text(name)) : other);
  return {
    ...DEFAULTS,
    q: text("q"), like: id("like"), crop: text("crop") || null, picture: text("picture") || null,
    weight: fraction("weight", 0.5), min: text("min") === "" ? "auto" : fraction("min", 0), unique: given.has("unique"),
    from: text("from"), to: text("to"), folder: text("folder"), px: text("px"), near: text("near") || null,
    kinds: given.getAll("kind"), tags: given.getAll("tag"), item: id("item"),
  };
}

function write(now) {
  const asked = new URLSearchParams();
  const put = (name, value) => value && asked.set(name, value);
  put("q", now.q);
  put("like", now.like);
  put("picture", now.picture);
  put("crop", now.crop);
  if (now.weight !== 0.5) asked.set("weight", now.weight);
  if (now.min !== "auto") asked.set("min", now.min);
  put("unique", now.unique ? "1" : "");
  for (const name of ["from", "to", "folder", "px", "near"]) put(name, now[name]);
  for (const kind of now.kinds) asked.append("kind", kind);
  for (const tag of now.tags) asked.append("tag", tag);
  put("item", now.item);
  const text = asked.toString();
  return text ? `?${text}` : location.pathname;
}
