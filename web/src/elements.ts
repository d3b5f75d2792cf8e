/** The page's elements by their id. */

/** The element with an id; the page has it. */
export function element<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page has no ${kind.name} with id ${id}`);
  return found;
}

/** Lines of a text area that are not empty, each once. */
export function lines(area: HTMLTextAreaElement): string[] {
  const trimmed = area.value.split("\n").map((line) => line.trim());
  return [...new Set(trimmed.filter((line) => line !== ""))];
}

/** A new element with a text. */
export function made<K extends keyof HTMLElementTagNameMap>(tag: K, className = "", text = ""): HTMLElementTagNameMap[K] {
  const one = document.createElement(tag);
  one.className = className;
  one.textContent = text;
  return one;
}

/** Says what went wrong until the next thing goes right; an empty sentence takes it away. */
export function complain(sentence: string): void {
  const problem = element("problem", HTMLElement);
  problem.textContent = sentence;
  problem.hidden = sentence === "";
}
