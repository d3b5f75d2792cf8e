/** Arrays of a `.safetensors` file: eight bytes of length, a header in JSON, the numbers. */

import { UserError } from "./errors";

export interface Stored {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** Name -> array; their bytes are views into the file's. */
export function readSafetensors(file: ArrayBuffer, name: string): Map<string, Stored> {
  const arrays = new Map<string, Stored>();
  try {
    const length = Number(new DataView(file).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(file, 8, length))) as Record<string, unknown>;
    for (const [key, value] of Object.entries(header)) {
      if (key === "__metadata__") continue;
      const { dtype, shape, data_offsets } = value as { dtype: string; shape: number[]; data_offsets: [number, number] };
      const [start, stop] = data_offsets;
      arrays.set(key, { dtype, shape, bytes: new Uint8Array(file, 8 + length + start, stop - start) });
    }
  } catch (error) {
    throw new UserError(`${name} is damaged (${String(error)}): copy the folder again, whole`);
  }
  return arrays;
}

/** One array, or a sentence about what is missing. */
export function stored(arrays: ReadonlyMap<string, Stored>, key: string, name: string): Stored {
  const found = arrays.get(key);
  if (found === undefined) throw new UserError(`${name} lacks ${key}: export the model again`);
  return found;
}

/** A copy as float32, whatever place it has in the file. */
export function asFloat32({ bytes }: Stored): Float32Array {
  return new Float32Array(bytes.slice().buffer);
}

/** int64 as numbers. */
export function asIntegers({ bytes }: Stored): number[] {
  return Array.from(new BigInt64Array(bytes.slice().buffer), Number);
}
