/** The first panel: what a picture or the camera shows, among labels that people write. */

import { type Camera, startCamera } from "./camera";
import type { Client } from "./client";
import { complain, element, lines, made } from "./elements";
import type { Facts, Picture } from "./engine";
import { sentence } from "./errors";
import { meanOf, odds, type Rows } from "./vectors";

const SHOWN = 6;
const PAUSE_MS = 100; // between pictures of the camera
const TYPING_MS = 400;
const LABELS = ["cat", "dog", "bird", "person", "car", "tree", "flower", "food", "building", "landscape"];
const PROMPTS = ["a photo of a {}."];

export class ClassifyPanel {
  private readonly labels = element("labels", HTMLTextAreaElement);
  private readonly prompts = element("prompts", HTMLTextAreaElement);
  private readonly results = element("results", HTMLOListElement);
  private readonly shown = element("shown", HTMLImageElement);
  private readonly video = element("video", HTMLVideoElement);
  private readonly cameraButton = element("camera", HTMLButtonElement);
  private readonly turnButton = element("turn", HTMLButtonElement);
  private readonly known = new Map<string, Promise<Rows>>();
  private camera: Camera | undefined;
  private last: Rows | undefined; // embedding of what was classified last
  private typing: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly client: Client,
    private readonly facts: Facts,
  ) {
    this.labels.value = (facts.labels.length ? facts.labels : LABELS).join("\n");
    this.prompts.value = PROMPTS.join("\n");
    for (const area of [this.labels, this.prompts]) {
      area.addEventListener("input", () => {
        clearTimeout(this.typing);
        this.typing = setTimeout(() => void this.answer(), TYPING_MS);
      });
    }
    this.cameraButton.addEventListener("click", () => void this.toggleCamera());
    this.turnButton.addEventListener("click", () => void this.camera?.turn().catch((error) => complain(sentence(error))));
  }

  /** Shows a picture and says what it is. */
  async take(file: Blob): Promise<void> {
    this.stopCamera();
    URL.revokeObjectURL(this.shown.src);
    this.shown.src = URL.createObjectURL(file);
    this.show(this.shown);
    await this.look(file);
  }

  stopCamera(): void {
    this.camera?.stop();
    this.camera = undefined;
    this.cameraButton.setAttribute("aria-pressed", "false");
    this.cameraButton.textContent = "Camera";
    this.turnButton.hidden = true;
    this.results.ariaLive = "polite";
  }

  private async look(picture: Picture): Promise<void> {
    const start = performance.now();
    try {
      this.last = await this.client.call("embedImages", [picture]);
      const took = Math.round(performance.now() - start);
      await this.answer();
      element("timing", HTMLElement).textContent = `Picture embedded in ${took} ms`;
    } catch (error) {
      this.last = undefined;
      this.results.replaceChildren();
      complain(sentence(error));
    }
  }

  /** Compares the last embedding with the labels. */
  private async answer(): Promise<void> {
    const image = this.last;
    if (image === undefined) return;
    const labels = lines(this.labels);
    try {
      if (labels.length === 0) throw new Error("Write at least one label.");
      const shares = odds(image.values, await this.embedLabels(labels), this.facts.logitScale);
      const best = labels.map((label, i) => ({ label, share: shares[i] as number }));
      best.sort((a, b) => b.share - a.share);
      this.results.replaceChildren(...best.slice(0, SHOWN).map(({ label, share }) => result(label, share)));
      complain("");
    } catch (error) {
      complain(sentence(error));
    }
  }

  private embedLabels(labels: readonly string[]): Promise<Rows> {
    const templates = lines(this.prompts);
    if (templates.length === 0 || !templates.every((one) => one.includes("{}"))) {
      throw new Error('Every prompt must hold "{}" where the label goes.');
    }
    const prompts = labels.flatMap((label) => templates.map((one) => one.replaceAll("{}", () => label)));
    const key = prompts.join("\n");
    let found = this.known.get(key);
    if (found === undefined) {
      found = this.client.call("embedTexts", prompts).then((rows) => meanOf(rows, templates.length));
      found.catch(() => this.known.delete(key));
      this.known.clear(); // only what is asked now
      this.known.set(key, found);
    }
    return found;
  }

  private show(what: HTMLElement): void {
    for (const one of [element("hint", HTMLElement), this.shown, this.video]) one.hidden = one !== what;
  }

  private async toggleCamera(): Promise<void> {
    if (this.camera !== undefined) return this.stopCamera();
    try {
      this.camera = await startCamera(this.video);
    } catch (error) {
      return complain(sentence(error));
    }
    complain("");
    this.cameraButton.setAttribute("aria-pressed", "true");
    this.cameraButton.textContent = "Stop the camera";
    this.turnButton.hidden = !this.camera.hasOthers;
    this.results.ariaLive = "off"; // it would never be silent
    this.show(this.video);
    for (const mine = this.camera; this.camera === mine; ) {
      if (!document.hidden && this.video.videoWidth > 0) await this.look(await createImageBitmap(this.video));
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}

function result(label: string, share: number): HTMLLIElement {
  const item = made("li");
  const bar = made("span", "bar");
  const filled = made("span");
  filled.style.width = `${100 * share}%`;
  bar.append(filled);
  bar.ariaHidden = "true";
  item.append(made("span", "label", label), made("span", "percent", `${(100 * share).toFixed(1)}%`), bar);
  return item;
}
