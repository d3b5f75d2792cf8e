/** The second panel: pictures of the folder's own index, by words or by a picture. */

import type { Client } from "./client";
import { complain, element, made } from "./elements";
import type { Facts } from "./engine";
import { sentence } from "./errors";
import type { Found } from "./gallery";

const SHOWN = 24;

export class SearchPanel {
  private readonly text = element("text", HTMLInputElement);
  private readonly grid = element("grid", HTMLUListElement);
  private readonly found = element("found", HTMLElement);
  private urls: string[] = [];

  constructor(
    private readonly client: Client,
    private readonly facts: Facts,
  ) {
    this.found.textContent = facts.numPictures
      ? `${facts.numPictures} pictures`
      : "This folder has no index: export with --pictures FOLDER to have one.";
    element("query", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.text.value.trim() !== "") void this.look(() => client.call("embedTexts", [this.text.value]), "for these words");
    });
  }

  /** Looks for pictures like this one. */
  async take(file: Blob): Promise<void> {
    await this.look(() => this.client.call("embedImages", [file]), "like this picture");
  }

  private async look(embed: () => Promise<{ values: Float32Array }>, what: string): Promise<void> {
    if (this.facts.numPictures === 0) return complain(this.found.textContent ?? "");
    const start = performance.now();
    try {
      const { values } = await embed();
      const found = await this.client.call("find", values, SHOWN);
      const took = Math.round(performance.now() - start);
      this.found.textContent = `The ${found.length} best of ${this.facts.numPictures} pictures ${what}, in ${took} ms`;
      this.show(found);
      complain("");
    } catch (error) {
      complain(sentence(error));
    }
  }

  private show(found: readonly Found[]): void {
    for (const url of this.urls) URL.revokeObjectURL(url);
    this.urls = found.map(({ thumbnail }) => URL.createObjectURL(thumbnail));
    this.grid.replaceChildren(
      ...found.map(({ name, cosine }, i) => {
        const [item, figure, image] = [made("li"), made("figure"), made("img")];
        image.src = this.urls[i] as string;
        image.alt = name;
        figure.append(image, made("figcaption", "", `${name} · ${cosine.toFixed(3)}`));
        item.append(figure);
        return item;
      }),
    );
  }
}
