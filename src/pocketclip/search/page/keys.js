// Keys that work anywhere on the page, unless something is being typed.

import * as crop from "./crop.js";
import { byId } from "./elements.js";
import * as filters from "./filters.js";
import * as grid from "./grid.js";
import * as selection from "./selection.js";
import { settle } from "./state.js";
import * as viewer from "./viewer.js";

const isTyping = (target) => target.matches("input:not([type=checkbox]):not([type=range]), select, textarea, [contenteditable]");
const focusedItem = () => (byId("grid").contains(document.activeElement) ? grid.activeItem() : null);

function inViewer(event) {
  const deeds = {
    ArrowLeft: () => viewer.go(-1),
    ArrowRight: () => viewer.go(1),
    m: () => viewer.item() && viewer.moreLike(viewer.item().id),
    c: viewer.startCrop,
    x: () => byId("viewer-select").click(),
  };
  return event.target.matches("video") || crop.isOn() ? null : deeds[event.key];
}

const onPage = {
  "/": () => {
    byId("words").focus();
    byId("words").select();
  },
  m: () => focusedItem() && viewer.moreLike(focusedItem().id),
  x: () => focusedItem() && selection.toggle(focusedItem()),
  f: () => filters.toggle(),
  "?": () => byId("help").showModal(),
};

export function listen() {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || isTyping(event.target)) return;
    if (byId("help").open) return;
    const deed = viewer.isOpen() ? inViewer(event) : onPage[event.key];
    if (!deed) return;
    event.preventDefault();
    deed();
  });
  byId("words").addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "ArrowDown" && grid.length()) {
      event.preventDefault();
      grid.focus(0);
    } else if (event.key === "Escape") {
      event.preventDefault();
      if (byId("words").value) {
        byId("words").value = "";
        byId("words").dispatchEvent(new Event("input"));
      } else byId("words").blur();
    } else if (event.key === "Enter") settle();
  });
}
