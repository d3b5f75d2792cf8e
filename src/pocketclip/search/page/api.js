// The server's interface, as functions.

export class Refused extends Error {
  constructor(status, message, wait) {
    super(message);
    this.status = status;
    this.wait = wait;
  }
}

async function ask(address, options = {}) {
  const response = await fetch(address, options);
  if (response.ok) return response.json();
  let message = `the server answered ${response.status}`;
  try {
    message = (await response.json()).message;
  } catch { /* not ours: the number says enough */ }
  throw new Refused(response.status, message, Number(response.headers.get("retry-after") ?? 0));
}

function conditions(now) {
  const asked = new URLSearchParams();
  if (now.from) asked.set("taken_from", now.from);
  if (now.to) asked.set("taken_to", now.to);
  if (now.folder) asked.set("folder", now.folder);
  if (now.px) asked.set("min_px", now.px);
  if (now.near) asked.set("near", now.near);
  for (const kind of now.kinds) asked.append("kind", kind);
  for (const tag of now.tags) asked.append("tag", tag);
  return asked;
}

// Hits for a state; `file` is the picture to search by, where there is one.
export function search(now, { file = null, offset = 0, k = 60, quick = false, signal }) {
  const asked = conditions(now);
  if (now.q.trim()) asked.set("q", now.q);
  if (now.like) asked.set("like", now.like);
  if (now.crop) asked.set("crop", now.crop);
  if ((now.like || file) && now.q.trim()) asked.set("text_weight", now.weight);
  if (now.min !== 0) asked.set("min_score", now.min);
  if (now.unique) asked.set("unique", "true");
  if (quick) asked.set("quick", "true");
  asked.set("k", k);
  if (offset) asked.set("offset", offset);
  if (!file) return ask(`api/search?${asked}`, { signal });
  const body = new FormData();
  body.set("picture", file, file.name ?? "picture");
  return ask(`api/search?${asked}`, { method: "POST", body, signal });
}

export function items(now, { after = 0, limit = 100, signal }) {
  const asked = conditions(now);
  asked.set("limit", limit);
  if (after) asked.set("after", after);
  return ask(`api/items?${asked}`, { signal });
}

export const details = (id, signal) => ask(`api/items/${id}`, { signal });
export const filters = () => ask("api/filters");
export const thumbnail = (id) => `api/items/${id}/thumbnail`;
