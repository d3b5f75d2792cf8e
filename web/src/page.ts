/** The page: opens the model, puts the panels together, and lets tests and other programs in by `window.pocketclip`. */

import { ClassifyPanel } from "./classify";
import { Client } from "./client";
import { complain, element } from "./elements";
import type { Facts } from "./engine";
import { sentence } from "./errors";
import { SearchPanel } from "./search";
import type { Backend } from "./towers";
import { row, type Rows } from "./vectors";

/** `window.pocketclip`: what the page computes, for programs. */
export interface Hook {
  readonly ready: Promise<Facts>;
  embedImages(pictures: readonly (Blob | ImageBitmap)[]): Promise<number[][]>;
  embedTexts(texts: readonly string[]): Promise<number[][]>;
  tokens(texts: readonly string[]): Promise<number[][]>;
  pixels(picture: Blob): Promise<Uint8Array>;
}

declare global {
  interface Window {
    pocketclip: Hook;
  }
}

const TABS = ["classify", "search"] as const;
type Tab = (typeof TABS)[number];

const base = new URL(".", location.href).href;
const status = element("status", HTMLElement);
const progress = element("progress", HTMLProgressElement);
const client = new Client(base, tellProgress);
const ready = client.open(base, wantedBackend());
window.pocketclip = {
  ready,
  embedImages: async (pictures) => numbers(await client.call("embedImages", pictures)),
  embedTexts: async (texts) => numbers(await client.call("embedTexts", texts)),
  tokens: (texts) => client.call("tokens", texts),
  pixels: (picture) => client.call("pixels", picture),
};
status.textContent = "Loading the model";
ready.then(show, (error: unknown) => {
  status.textContent = "";
  progress.hidden = true;
  complain(sentence(error));
});

function show(facts: Facts): void {
  status.textContent = "";
  progress.hidden = true;
  const threads = facts.threads > 1 ? `, ${facts.threads} threads` : "";
  const where = facts.backend === "webgpu" ? "WebGPU" : `WebAssembly${threads}`;
  const warning = facts.hasPassed ? "" : " · not proven equal to its checkpoint";
  element("facts", HTMLElement).textContent = `${facts.model} · ${facts.precision} · ${where}${warning}`;
  element("main", HTMLElement).hidden = false;
  const panels = { classify: new ClassifyPanel(client, facts), search: new SearchPanel(client, facts) };
  let current: Tab = "classify";
  const takes = (file: Blob): void => void panels[current].take(file);
  listenToTabs((tab) => {
    current = tab;
    if (tab !== "classify") panels.classify.stopCamera();
  });
  listenToPictures(takes);
  listenToButton("choose", "file", takes);
  listenToButton("similar", "similar-file", takes);
}

function tellProgress(name: string, done: number, total: number): void {
  const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;
  status.textContent = `Loading ${name}: ${megabytes(done)}${total ? ` of ${megabytes(total)}` : ""}`;
  progress.hidden = false;
  if (total) [progress.max, progress.value] = [total, done];
  else progress.removeAttribute("value");
}

function listenToTabs(chosen: (tab: Tab) => void): void {
  const choose = (tab: Tab): void => {
    for (const one of TABS) {
      const button = element(`tab-${one}`, HTMLButtonElement);
      button.setAttribute("aria-selected", String(one === tab));
      button.tabIndex = one === tab ? 0 : -1;
      element(one, HTMLElement).hidden = one !== tab;
    }
    complain("");
    chosen(tab);
  };
  TABS.forEach((tab, i) => {
    const button = element(`tab-${tab}`, HTMLButtonElement);
    button.addEventListener("click", () => choose(tab));
    button.addEventListener("keydown", ({ key }) => {
      if (key !== "ArrowLeft" && key !== "ArrowRight") return;
      const other = TABS[(i + 1) % TABS.length] as Tab;
      choose(other);
      element(`tab-${other}`, HTMLButtonElement).focus();
    });
  });
}

/** Dropped and pasted ones. */
function listenToPictures(take: (file: Blob) => void): void {
  const taken = (files: FileList | undefined, event: Event): void => {
    const file = Array.from(files ?? []).find((one) => one.type.startsWith("image/") || one.type === "");
    if (file !== undefined) {
      event.preventDefault();
      take(file);
    } else if (files?.length) {
      event.preventDefault();
      complain(`${files[0]?.name ?? "That"} is not a picture.`);
    }
  };
  document.addEventListener("paste", (event) => taken(event.clipboardData?.files, event));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("is-over");
  });
  document.addEventListener("dragleave", () => document.body.classList.remove("is-over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("is-over");
    taken(event.dataTransfer?.files, event);
  });
}

function listenToButton(buttonId: string, inputId: string, take: (file: Blob) => void): void {
  const input = element(inputId, HTMLInputElement);
  element(buttonId, HTMLButtonElement).addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    const file = input.files?.[0];
    if (file !== undefined) take(file);
    input.value = "";
  });
}

/** `?backend=wasm` or `?backend=webgpu` decides; otherwise the best that passes. */
function wantedBackend(): Backend | "auto" {
  const named = new URLSearchParams(location.search).get("backend");
  return named === "wasm" || named === "webgpu" ? named : "auto";
}

function numbers(rows: Rows): number[][] {
  return Array.from({ length: rows.num }, (_, i) => Array.from(row(rows, i)));
}
