/** Everything that answers questions about pictures and texts; the page is only its face. */

import { Gallery, type Found } from "./gallery";
import { fetchBytes, fetchRole, type Manifest, type Progress, readManifest } from "./manifest";
import { withPicture } from "./picture";
import { square } from "./preprocess";
import { Tokenizer } from "./tokenizer";
import { type Backend, openTowers, type Towers } from "./towers";
import type { Rows } from "./vectors";

const IMAGES_AT_ONCE = 8;
const TEXTS_AT_ONCE = 32;

export type Picture = Blob | ImageBitmap;

/** What the page says about itself. */
export interface Facts {
  readonly model: string;
  readonly precision: string;
  readonly hasPassed: boolean;
  readonly backend: Backend;
  readonly threads: number;
  readonly logitScale: number;
  readonly labels: readonly string[];
  readonly numPictures: number;
}

export class Engine {
  private constructor(
    readonly facts: Facts,
    private readonly manifest: Manifest,
    private readonly tokenizer: Tokenizer,
    private readonly towers: Towers,
    private readonly gallery: Gallery | undefined,
  ) {}

  /** Fetches and opens all that the folder at `base` holds. */
  static async open(base: string, wanted: Backend | "auto", tell: Progress): Promise<Engine> {
    const manifest = await readManifest(base);
    const text = new TextDecoder();
    const tokenizer = new Tokenizer(
      text.decode(await fetchRole(base, manifest, "tokenizer")),
      manifest.context_length,
    );
    const labels = "labels" in manifest.files ? text.decode(await fetchRole(base, manifest, "labels")) : "";
    const index = manifest.settings.pictures;
    const gallery = index === undefined ? undefined : new Gallery(await fetchBytes(base, index, 0, tell));
    const towers = await openTowers(base, manifest, wanted, tell);
    const facts = {
      model: manifest.model,
      precision: manifest.precision,
      hasPassed: manifest.parity.passed === true,
      backend: towers.backend,
      threads: towers.threads,
      logitScale: manifest.logit_scale,
      labels: labels.split("\n").filter((label) => label !== ""),
      numPictures: gallery?.num ?? 0,
    };
    return new Engine(facts, manifest, tokenizer, towers, gallery);
  }

  /** Rows of length 1. Bitmaps are closed. */
  async embedImages(pictures: readonly Picture[]): Promise<Rows> {
    const pixels = [];
    for (const picture of pictures) pixels.push(await this.pixels(picture));
    return this.inBatches(pixels, IMAGES_AT_ONCE, (some) => this.towers.images(some));
  }

  /** Rows of length 1. */
  async embedTexts(texts: readonly string[]): Promise<Rows> {
    return this.inBatches(this.tokens(texts), TEXTS_AT_ONCE, (some) => this.towers.texts(some));
  }

  /** Ids [B][L]. */
  tokens(texts: readonly string[]): number[][] {
    return this.tokenizer.encodeAll(texts);
  }

  /** The square that the image tower sees: uint8 [size, size, 3]. */
  async pixels(picture: Picture): Promise<Uint8Array> {
    const { preprocess, settings } = this.manifest;
    return withPicture(picture, (source) => square(source, preprocess, settings.resize_order));
  }

  /** Pictures of the folder's own index, best first. */
  find(query: Float32Array, most: number): Found[] {
    return this.gallery?.find(query, most) ?? [];
  }

  private async inBatches<T>(items: readonly T[], size: number, embed: (some: readonly T[]) => Promise<Rows>): Promise<Rows> {
    const width = this.manifest.embed_dim;
    const values = new Float32Array(items.length * width);
    for (let start = 0; start < items.length; start += size) {
      values.set((await embed(items.slice(start, start + size))).values, start * width);
    }
    return { num: items.length, width, values };
  }
}
