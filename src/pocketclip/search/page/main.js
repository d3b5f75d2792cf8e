// Puts the page together: the address says what is looked for, and all else follows it.

import { byId } from "./elements.js";
import * as filters from "./filters.js";
import * as grid from "./grid.js";
import * as keys from "./keys.js";
import * as picture from "./picture.js";
import * as progress from "./progress.js";
import * as results from "./results.js";
import * as selection from "./selection.js";
import { change, onChange, state, type } from "./state.js";
import * as viewer from "./viewer.js";

const words = byId("words");
let renewal = 0;
let wasIndexing = false;
let askedAt = 0;

function follow(now, before) {
  if (now.picture && !picture.isKnown(now.picture)) { // forgotten: the page was loaded anew, or many came after it
    change({ picture: null, crop: null }, { replace: true });
    return;
  }
  if (words.value !== now.q) words.value = now.q;
  byId("unique").checked = now.unique;
  byId("weight").value = now.weight;
  document.title = now.q.trim() ? `${now.q.trim()} · pocketclip` : "pocketclip";
  picture.showChip(now);
  filters.showChosen(now);
  const rest = ({ item, ...others }) => JSON.stringify(others);
  if (!before || rest(now) !== rest(before)) {
    const onlyTyped = before && rest({ ...now, q: "", weight: 0, min: 0 }) === rest({ ...before, q: "", weight: 0, min: 0 });
    if (onlyTyped) results.whileTyping();
    else results.now();
  }
  if (!before || now.item !== before.item) viewer.follow(now);
}

// The index has changed: new pictures appear where they would be seen, and are announced where they would disturb.
function renew(status) {
  if (wasIndexing && !status.is_indexing) filters.load();
  wasIndexing = status.is_indexing;
  if (!results.generation() || status.generation === results.generation()) return;
  if (scrollY > 300 || viewer.isOpen()) {
    const newer = byId("newer");
    newer.textContent = "There are new pictures";
    newer.hidden = false;
    return;
  }
  clearTimeout(renewal);
  renewal = setTimeout(refresh, Math.max(0, askedAt + 1000 - performance.now()));
}

function refresh() {
  askedAt = performance.now();
  byId("newer").hidden = true;
  results.now({ keep: true });
}

function dark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function showTheme() {
  byId("theme").setAttribute("aria-pressed", String(dark()));
}

words.addEventListener("input", () => type({ q: words.value }));
byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  results.now();
});
byId("weight").addEventListener("input", (event) => change({ weight: Number(event.target.value) }, { replace: true }));
byId("min-score").addEventListener("input", (event) => change({ min: Number(event.target.value) }, { replace: true }));
byId("auto").addEventListener("change", (event) => change({ min: event.target.checked ? "auto" : 0 }));
byId("unique").addEventListener("change", (event) => change({ unique: event.target.checked }));
byId("newer").addEventListener("click", () => {
  scrollTo(0, 0);
  refresh();
});
byId("theme").addEventListener("click", () => {
  const theme = dark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("pocketclip-theme", theme);
  showTheme();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
document.querySelector(".brand").addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  change({ q: "", like: null, crop: null, picture: null, item: null });
});

grid.listen({
  open: (item) => change({ item: item.id }),
  more: results.more,
  select: (item) => selection.toggle(item),
  isSelected: selection.has,
});
selection.listen(grid.refreshSelection);
picture.listen();
filters.listen();
viewer.listen();
keys.listen();
onChange(follow);
follow(state(), null);
showTheme();
document.addEventListener("pocketclip-results", viewer.steps);
if (matchMedia("(max-width: 640px)").matches) words.placeholder = "Describe a picture";
filters.load();
progress.listen({ changed: renew, back: () => { results.now({ keep: true }); filters.load(); } });
