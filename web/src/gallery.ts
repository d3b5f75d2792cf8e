/** The small index that a folder may carry: embeddings in 8 bits, thumbnails and names, in one file. */

import { asFloat32, asIntegers, readSafetensors, stored } from "./safetensors";
import { dot } from "./vectors";

export interface Found {
  readonly name: string;
  readonly cosine: number;
  readonly thumbnail: Blob;
}

const FILE = "pictures.safetensors";

export class Gallery {
  readonly num: number;
  private readonly width: number;
  private readonly embed: Int8Array;
  private readonly scale: Float32Array;
  private readonly names: readonly string[];
  private readonly ends: readonly number[];
  private readonly thumbnails: Uint8Array;

  constructor(file: ArrayBuffer) {
    const arrays = readSafetensors(file, FILE);
    const embed = stored(arrays, "embed", FILE);
    [this.num, this.width] = embed.shape as [number, number];
    this.embed = new Int8Array(embed.bytes.buffer, embed.bytes.byteOffset, embed.bytes.byteLength);
    this.scale = asFloat32(stored(arrays, "scale", FILE));
    this.ends = asIntegers(stored(arrays, "ends", FILE));
    this.thumbnails = stored(arrays, "thumbnails", FILE).bytes;
    this.names = JSON.parse(new TextDecoder().decode(stored(arrays, "names", FILE).bytes)) as string[];
  }

  /** The pictures nearest to an embedding of length 1, best first. */
  find(query: Float32Array, most: number): Found[] {
    const cosines = Float32Array.from(
      { length: this.num },
      (_, i) => (this.scale[i] as number) * dot(query, this.embed.subarray(i * this.width, (i + 1) * this.width)),
    );
    const rows = Array.from(cosines.keys()).sort((a, b) => (cosines[b] as number) - (cosines[a] as number));
    return rows.slice(0, most).map((i) => ({
      name: this.names[i] as string,
      cosine: cosines[i] as number,
      thumbnail: new Blob([this.thumbnails.slice(this.ends[i - 1] ?? 0, this.ends[i])], { type: "image/webp" }),
    }));
  }
}
