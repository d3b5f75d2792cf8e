// The grid: only what is near the screen exists, and what stays between two results is kept, not drawn again.

import { byId, element, icon } from "./elements.js";
import { clock } from "./format.js";
import { justify, neighbour, rowsBetween } from "./layout.js";

const AHEAD = 1.2; // screens above and below that are there before they are seen
const grid = byId("grid");
const tiles = new Map(); // by item id
let items = [];
let layout = justify([], 1, 1);
let isWhole = true;
let active = 0;
let handlers = { open() {}, more() {}, select() {}, isSelected: () => false };
let drawing = 0;
let renewal = 0;

export function listen(given) {
  handlers = { ...handlers, ...given };
}

export const length = () => items.length;
export const all = () => items;
export const indexOf = (id) => items.findIndex((item) => item.id === id);
export const activeItem = () => items[active] ?? null;

// Shows other items; `keep` leaves the place and the focus where they are.
export function show(found, { whole, keep = false }) {
  const focused = keep && grid.contains(document.activeElement) ? activeItem()?.id : null;
  items = found;
  isWhole = whole;
  if (!keep) active = 0;
  if (focused != null) active = Math.max(0, indexOf(focused));
  relay();
  if (!keep) scrollTo(0, 0);
  draw();
}

export function append(more, { whole }) {
  const known = new Set(items.map((item) => item.id));
  items = [...items, ...more.filter((item) => !known.has(item.id))];
  isWhole = whole;
  relay();
  draw();
}

export function refreshSelection() {
  for (const [id, tile] of tiles) {
    tile.querySelector(".select").setAttribute("aria-pressed", String(handlers.isSelected(id)));
  }
}

// Puts the focus on an item, and the item on the screen.
export function focus(index) {
  if (!items.length) return;
  active = Math.min(items.length - 1, Math.max(0, index));
  const box = layout.boxes[active];
  const start = grid.getBoundingClientRect().top + scrollY;
  const above = document.querySelector(".bar").offsetHeight + 8;
  const from = start + box.top - above;
  const to = start + box.top + box.height + 12 - innerHeight;
  if (scrollY > from) scrollTo(0, from);
  else if (scrollY < to) scrollTo(0, to);
  draw();
  tiles.get(items[active].id)?.querySelector("a").focus({ preventScroll: true });
}

function relay() {
  const width = grid.clientWidth || 1;
  layout = justify(items, width, width < 640 ? 128 : Math.min(250, 170 + width / 24), { isWhole });
  grid.style.height = `${layout.height}px`;
}

function draw() {
  cancelAnimationFrame(drawing);
  drawing = 0;
  const start = grid.getBoundingClientRect().top;
  const [first, last] = rowsBetween(layout.rows, -start - innerHeight * AHEAD, -start + innerHeight * (1 + AHEAD));
  const wanted = new Set();
  let before = null;
  if (last >= first) {
    for (let index = layout.rows[first].first; index <= layout.rows[last].last; index += 1) {
      wanted.add(items[index].id);
      before = place(index, before);
    }
  }
  if (items[active] && !wanted.has(items[active].id) && tiles.get(items[active].id)?.contains(document.activeElement)) {
    wanted.add(items[active].id);
  }
  for (const [id, tile] of tiles) {
    if (!wanted.has(id)) {
      tile.remove();
      tiles.delete(id);
    }
  }
  const end = start + layout.height - innerHeight;
  if (!isWhole && end < innerHeight * 2) handlers.more();
}

// Puts the tile of an item where it belongs, after the tile before it: the order of reading is that of the pictures.
function place(index, before) {
  const item = items[index];
  const box = layout.boxes[index];
  let tile = tiles.get(item.id);
  if (!tile) {
    tile = build(item);
    tiles.set(item.id, tile);
  }
  if (tile.previousElementSibling !== before || tile.parentNode !== grid) {
    if (before) before.after(tile);
    else grid.prepend(tile);
  }
  tile.style.transform = `translate(${box.left}px, ${box.top}px)`;
  tile.style.width = `${box.width}px`;
  tile.style.height = `${box.height}px`;
  tile.setAttribute("aria-posinset", index + 1);
  tile.setAttribute("aria-setsize", isWhole ? items.length : -1);
  const link = tile.firstElementChild;
  link.tabIndex = index === active ? 0 : -1;
  const score = tile.querySelector(".about b");
  score.textContent = item.score == null ? "" : item.score.toFixed(2);
  return tile;
}

function build(item) {
  const picture = element("img", { alt: "", decoding: "async", draggable: false });
  picture.addEventListener("load", () => picture.classList.add("there"), { once: true });
  picture.src = item.thumbnail.slice(1);
  const moment = item.at_s == null ? "" : `, at ${clock(item.at_s)}`;
  const link = element(
    "a",
    { href: `?item=${item.id}`, "aria-label": `${item.name}${moment}`, title: item.caption ?? item.name },
    picture,
    element("div", { className: "about", "aria-hidden": "true" }, element("span", { textContent: item.name }), element("b")),
  );
  const select = element(
    "button",
    { type: "button", className: "select", tabIndex: -1, "aria-label": `Select ${item.name}`, "aria-pressed": String(handlers.isSelected(item.id)) },
    icon("check"),
  );
  const tile = element("li", { className: "tile", role: "listitem" }, link, select);
  tile.dataset.id = item.id;
  if (item.at_s != null) {
    link.append(element("span", { className: "moment", "aria-hidden": "true" }, icon("play"), clock(item.at_s)));
  }
  return tile;
}

const numberOf = (target) => Number(target.closest(".tile")?.dataset.id ?? 0);

grid.addEventListener("click", (event) => {
  const id = numberOf(event.target);
  if (!id) return;
  active = indexOf(id);
  if (event.target.closest(".select")) {
    handlers.select(items[active]);
  } else if (!event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    handlers.open(items[active]);
  }
});

grid.addEventListener("focusin", (event) => {
  const id = numberOf(event.target);
  if (!id) return;
  const old = tiles.get(items[active]?.id);
  active = indexOf(id);
  if (old) old.firstElementChild.tabIndex = -1;
  tiles.get(id).firstElementChild.tabIndex = 0;
});

grid.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !items.length) return;
  const steps = {
    ArrowLeft: () => active - 1,
    ArrowRight: () => active + 1,
    ArrowUp: () => neighbour(layout, active, -1),
    ArrowDown: () => neighbour(layout, active, 1),
    Home: () => 0,
    End: () => items.length - 1,
  };
  const step = steps[event.key];
  if (!step) return;
  event.preventDefault();
  const next = step();
  if (next >= 0 && next < items.length) focus(next);
  else if (event.key === "ArrowUp") byId("words").focus();
});

addEventListener("scroll", () => { drawing ||= requestAnimationFrame(draw); }, { passive: true });
new ResizeObserver(() => {
  cancelAnimationFrame(renewal);
  renewal = requestAnimationFrame(() => { relay(); draw(); });
}).observe(grid);
