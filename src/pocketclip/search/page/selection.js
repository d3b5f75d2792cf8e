// Chosen pictures, and their export as CSV or JSON.

import { byId, element } from "./elements.js";
import { pictures } from "./format.js";

const FIELDS = ["rank", "score", "id", "name", "folder", "kind", "taken", "width", "height", "at_s", "caption"];
const chosen = new Map();
let changed = () => {};

export const has = (id) => chosen.has(id);

export function toggle(item) {
  if (chosen.has(item.id)) chosen.delete(item.id);
  else chosen.set(item.id, item);
  show();
}

export function showIn(button, id) {
  button.setAttribute("aria-pressed", String(has(id)));
  button.lastChild.textContent = has(id) ? "Selected" : "Select";
}

function show() {
  byId("selection").hidden = !chosen.size;
  byId("num-selected").textContent = `${pictures(chosen.size)} selected`;
  byId("grid").classList.toggle("choosing", chosen.size > 0);
  changed();
}

const rows = () => [...chosen.values()].map((item) => Object.fromEntries(FIELDS.map((name) => [name, item[name] ?? null])));

// A cell that a spreadsheet would take for a formula is marked as text.
function cell(value) {
  if (value == null) return "";
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function save(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

export function listen(onChange) {
  changed = onChange;
  byId("clear-selection").addEventListener("click", () => {
    chosen.clear();
    show();
  });
  byId("export-json").addEventListener("click", () => save("pictures.json", "application/json", JSON.stringify(rows(), null, 1)));
  byId("export-csv").addEventListener("click", () => {
    const lines = [FIELDS.join(","), ...rows().map((row) => FIELDS.map((name) => cell(row[name])).join(","))];
    save("pictures.csv", "text/csv", `${lines.join("\r\n")}\r\n`);
  });
}
