// Filters: what there is to choose from, what is chosen.

import * as api from "./api.js";
import { byId, element } from "./elements.js";
import { place } from "./format.js";
import { change, NO_FILTERS, numFilters, state } from "./state.js";

const KIND_NAMES = { picture: "Pictures", raw: "RAW", video: "Videos" };
const MOST_TAGS = 24;

export async function load() {
  let known;
  try {
    known = await api.filters();
  } catch {
    return; // the search that failed as well says why
  }
  byId("folders").replaceChildren(...known.folders.map((folder) => element("option", { value: folder })));
  for (const id of ["f-from", "f-to"]) {
    byId(id).min = known.taken_from ? `${known.taken_from}-01-01` : "";
    byId(id).max = known.taken_to ? known.taken_to.slice(0, 10) : "";
  }
  choices(byId("f-kinds"), "kinds", known.kinds.length > 1 ? known.kinds : [], (kind) => KIND_NAMES[kind] ?? kind);
  choices(byId("f-tags"), "tags", known.tags.slice(0, MOST_TAGS).map(({ tag }) => tag), (tag) => tag);
  showChosen();
}

function choices(fieldset, name, values, label) {
  fieldset.hidden = !values.length;
  fieldset.querySelector(".choices")?.remove();
  const boxes = values.map((value) => {
    const box = element("input", { type: "checkbox", name, value });
    return element("label", { className: "choice" }, box, element("span", { textContent: label(value) }));
  });
  fieldset.append(element("div", { className: "choices" }, ...boxes));
}

export function showChosen(now = state()) {
  byId("f-from").value = now.from;
  byId("f-to").value = now.to;
  if (document.activeElement !== byId("f-folder")) byId("f-folder").value = now.folder;
  byId("f-px").value = now.px;
  for (const box of byId("filter-form").querySelectorAll("input[type=checkbox]")) {
    box.checked = now[box.name].includes(box.value);
  }
  byId("f-near").hidden = !now.near;
  if (now.near) {
    const [latitude, longitude, km] = now.near.split(",").map(Number);
    byId("f-near-clear").textContent = `${km} km around ${place(latitude, longitude)} ×`;
    byId("f-near-clear").setAttribute("aria-label", "Do not filter by place any more");
  }
  const num = numFilters(now);
  byId("num-filters").hidden = !num;
  byId("num-filters").textContent = num;
  byId("show-filters").setAttribute("aria-label", num ? `Filters, ${num} set` : "Filters");
  byId("clear-filters").disabled = !num;
}

export function toggle(force) {
  const panel = byId("filters");
  panel.hidden = force === undefined ? !panel.hidden : !force;
  byId("show-filters").setAttribute("aria-expanded", String(!panel.hidden));
  if (!panel.hidden) byId("f-from").focus();
}

export function listen() {
  byId("show-filters").addEventListener("click", () => toggle());
  byId("clear-filters").addEventListener("click", () => change(NO_FILTERS));
  byId("f-near-clear").addEventListener("click", () => change({ near: null }));
  byId("filters").addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    toggle(false);
    byId("show-filters").focus();
  });
  const form = byId("filter-form");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", () => {
    const chosen = (name) => [...form.querySelectorAll(`input[name=${name}]:checked`)].map((box) => box.value);
    change({
      from: byId("f-from").value, to: byId("f-to").value, folder: byId("f-folder").value.trim(),
      px: byId("f-px").value, kinds: chosen("kinds"), tags: chosen("tags"),
    });
  });
}
