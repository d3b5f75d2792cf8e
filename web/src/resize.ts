/**
 * Pillow's resize of 8-bit pictures, to the last bit: antialiased, weights in fixed point, a pass for each direction.
 *
 * The arithmetic is that of Pillow's C code for 8-bit channels: weights in double precision, made integers of 22 bits
 * after the point, sums that begin at one half, rounded and clipped after each of the two passes.
 */

export type Interpolation = "bilinear" | "bicubic";

/**
 * Which pass comes first: rows until Pillow 12; since Pillow 13 columns, where the height shrinks much more than the
 * width.
 */
export type Order = "pillow_12" | "pillow_13";

export interface Resampling {
  readonly interpolation: Interpolation;
  readonly order: Order;
}

type Pixels = Uint8Array | Uint8ClampedArray;

/** A picture that is read a band of rows at a time: red, green, blue and one that is ignored, [rows, width, 4]. */
export interface Source {
  readonly width: number;
  readonly height: number;
  rows(first: number, num: number): Pixels;
}

/** Edges in a picture, pixels, not always whole. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

/** What is wanted of one axis: the whole resized to `size`, of which `num` from `first` on are kept. */
export interface Axis {
  readonly size: number;
  readonly first: number;
  readonly num: number;
  readonly span?: Span;
}

const POINT_BITS = 22;
const HALF = 1 << (POINT_BITS - 1);
const BAND = 64; // rows that are read at a time

interface Filter {
  readonly support: number;
  weight(x: number): number;
}

const FILTERS: Readonly<Record<Interpolation, Filter>> = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, weight: cubic },
};

/** Keys' cubic with a = -0.5. */
function cubic(x: number): number {
  const a = -0.5;
  x = Math.abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

interface Weights {
  readonly first: Int32Array; // of each pixel that is kept: the first one that it is made of
  readonly num: Int32Array; // and of how many
  readonly width: number; // entries of `weights` for each
  readonly weights: Int32Array;
}

function weigh(inSize: number, axis: Axis, filter: Filter): Weights {
  const from = Math.fround(axis.span?.from ?? 0);
  const to = Math.fround(axis.span?.to ?? inSize);
  const scale = Math.fround(to - from) / axis.size;
  const stretch = Math.max(scale, 1);
  const support = filter.support * stretch;
  const width = Math.ceil(support) * 2 + 1;
  const found = {
    first: new Int32Array(axis.num),
    num: new Int32Array(axis.num),
    width,
    weights: new Int32Array(axis.num * width),
  };
  for (let i = 0; i < axis.num; i++) {
    const centre = from + (axis.first + i + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const num = Math.min(Math.trunc(centre + support + 0.5), inSize) - first;
    const raw = Array.from({ length: num }, (_, x) => filter.weight((x + first - centre + 0.5) * (1 / stretch)));
    const total = raw.reduce((sum, one) => sum + one, 0);
    raw.forEach((one, x) => {
      const share = (total === 0 ? one : one / total) * 2 ** POINT_BITS;
      found.weights[i * width + x] = Math.trunc(share < 0 ? share - 0.5 : share + 0.5);
    });
    found.first[i] = first;
    found.num[i] = num;
  }
  return found;
}

/**
 * A part of a resized picture: uint8 [rows.num, columns.num, 3].
 *
 * A pass is left out where it would change nothing. Which one comes first shows in the last bits.
 */
export function resize(source: Source, columns: Axis, rows: Axis, how: Resampling): Uint8Array {
  const filter = FILTERS[how.interpolation];
  const down = isSame(source.height, rows) ? undefined : weigh(source.height, rows, filter);
  const across = isSame(source.width, columns) ? undefined : weigh(source.width, columns, filter);
  const shrinks = source.height - rows.size;
  if (down && across && how.order === "pillow_13" && shrinks > 0 && shrinks > 2 * (source.width - columns.size)) {
    const needed = reach(across);
    const cut = readRows(source, reach(down), (band, target) => cutColumns(band, source.width, needed, target), needed.num);
    const middle = passDown(cut, reach(down).first, needed.num * 3, down);
    const target = new Uint8Array(rows.num * columns.num * 3);
    passAcross(middle, { width: needed.num, first: needed.first, channels: 3 }, across, target);
    return target;
  }
  const needed = down ? reach(down) : rows;
  const pass = (band: Pixels, target: Uint8Array): void => {
    if (across) passAcross(band, { width: source.width, first: 0, channels: 4 }, across, target);
    else cutColumns(band, source.width, columns, target);
  };
  const middle = readRows(source, needed, pass, columns.num);
  return down ? passDown(middle, needed.first, columns.num * 3, down) : middle;
}

/** Rows of a source, a band at a time, each made [rows, width, 3] by a pass. */
function readRows(
  source: Source,
  { first, num }: { first: number; num: number },
  pass: (band: Pixels, target: Uint8Array) => void,
  width: number,
): Uint8Array {
  const line = width * 3;
  const target = new Uint8Array(num * line);
  for (let row = 0; row < num; row += BAND) {
    const some = Math.min(BAND, num - row);
    pass(source.rows(first + row, some), target.subarray(row * line, (row + some) * line));
  }
  return target;
}

/** The pixels that all of these weights reach. */
function reach(by: Weights): { first: number; num: number } {
  const last = by.num.length - 1;
  const first = by.first[0] as number;
  return { first, num: (by.first[last] as number) + (by.num[last] as number) - first };
}

function isSame(size: number, axis: Axis): boolean {
  return axis.size === size && axis.span === undefined;
}

function cutColumns(band: Pixels, width: number, columns: { first: number; num: number }, target: Uint8Array): void {
  let to = 0;
  for (let start = columns.first * 4; to < target.length; start += width * 4) {
    for (let from = start; from < start + columns.num * 4; from += 4) {
      target[to++] = band[from] as number;
      target[to++] = band[from + 1] as number;
      target[to++] = band[from + 2] as number;
    }
  }
}

function passAcross(
  band: Pixels,
  { width, first, channels }: { width: number; first: number; channels: 3 | 4 },
  by: Weights,
  target: Uint8Array,
): void {
  let to = 0;
  for (let start = 0; start < band.length; start += width * channels) {
    for (let column = 0; column < by.num.length; column++) {
      let from = start + ((by.first[column] as number) - first) * channels;
      let [red, green, blue] = [HALF, HALF, HALF];
      const at = column * by.width;
      for (let k = at; k < at + (by.num[column] as number); k++) {
        const weight = by.weights[k] as number;
        red += (band[from] as number) * weight;
        green += (band[from + 1] as number) * weight;
        blue += (band[from + 2] as number) * weight;
        from += channels;
      }
      target[to++] = clip(red);
      target[to++] = clip(green);
      target[to++] = clip(blue);
    }
  }
}

function passDown(middle: Uint8Array, top: number, line: number, by: Weights): Uint8Array {
  const target = new Uint8Array(by.num.length * line);
  for (let row = 0; row < by.num.length; row++) {
    const start = ((by.first[row] as number) - top) * line;
    for (let x = 0; x < line; x++) {
      let sum = HALF;
      for (let k = 0; k < (by.num[row] as number); k++) {
        sum += (middle[start + k * line + x] as number) * (by.weights[row * by.width + k] as number);
      }
      target[row * line + x] = clip(sum);
    }
  }
  return target;
}

function clip(sum: number): number {
  const value = sum >> POINT_BITS;
  return value < 0 ? 0 : value > 255 ? 255 : value;
}
