/** Picture to what the image tower takes, as the checkpoint was trained: the manifest says how. */

import { type Axis, type Interpolation, type Order, resize, type Source } from "./resize";

export interface Preprocess {
  readonly size: number;
  readonly mean: readonly [number, number, number];
  readonly std: readonly [number, number, number];
  readonly interpolation: Interpolation;
}

const MOST_RESIZED_PIXELS = 16_000_000; // a longer strip is resized only where the crop keeps it

/** Shortest side to `size`, then the centre square: uint8 [size, size, 3], bit for bit as Python has it. */
export function square(source: Source, { size, interpolation }: Preprocess, order: Order): Uint8Array {
  const short = Math.min(source.width, source.height);
  const long = Math.max(source.width, source.height);
  const scaled = Math.trunc((size * long) / short);
  const offset = roundHalf(scaled - size);
  const whole: Axis = { size, first: 0, num: size };
  let cut: Axis = { size: scaled, first: offset, num: size };
  let other = whole;
  if (scaled * size > MOST_RESIZED_PIXELS) {
    cut = { ...whole, span: { from: (offset * long) / scaled, to: ((offset + size) * long) / scaled } };
    other = { ...whole, span: { from: 0, to: short } };
  }
  const isWide = source.width >= source.height;
  return resize(source, isWide ? cut : other, isWide ? other : cut, { interpolation, order });
}

/** Half of a whole number, rounded; a half goes to the even neighbour. */
function roundHalf(twice: number): number {
  const below = Math.floor(twice / 2);
  return twice % 2 === 0 || below % 2 === 0 ? below : below + 1;
}

/** (x / 255 - mean) / std: uint8 [B, H, W, 3] to float32 [B, 3, H, W]. */
export function normalise(pixels: readonly Uint8Array[], { size, mean, std }: Preprocess): Float32Array {
  const area = size * size;
  const normalised = new Float32Array(pixels.length * 3 * area);
  for (let channel = 0; channel < 3; channel++) {
    const levels = levelsOf(Math.fround(mean[channel] as number), Math.fround(std[channel] as number));
    pixels.forEach((picture, row) => {
      const start = (row * 3 + channel) * area;
      for (let i = 0; i < area; i++) {
        normalised[start + i] = levels[picture[i * 3 + channel] as number] as number;
      }
    });
  }
  return normalised;
}

/** What each of the 256 levels becomes, rounded to float32 after each step. */
function levelsOf(mean: number, std: number): Float32Array {
  return Float32Array.from({ length: 256 }, (_, level) => {
    const centred = Math.fround(Math.fround(level / 255) - mean);
    return centred / std;
  });
}
