/** The two networks, run by onnxruntime-web: on the GPU where that gives the right numbers, else in WebAssembly. */

import type { InferenceSession, Tensor } from "onnxruntime-common";

import { UserError } from "./errors";
import { fetchBytes, fetchPacked, fetchRole, type Manifest, type Progress } from "./manifest";
import { normalise } from "./preprocess";
import { asFloat32, asIntegers, readSafetensors, stored } from "./safetensors";
import { type Rows, worstCosine } from "./vectors";

export type Backend = "webgpu" | "wasm";
export type Role = "image" | "text";

const MIN_COSINE = 0.999; // with the probes that the folder carries, as the runtime in Python asks
const MOST_THREADS = 4;

type Ort = typeof import("onnxruntime-web");

export interface Towers {
  readonly backend: Backend;
  readonly threads: number;
  /** Pixels, uint8 [size, size, 3] each. */
  images(pixels: readonly Uint8Array[]): Promise<Rows>;
  /** Token ids, [L] each. */
  texts(tokens: readonly number[][]): Promise<Rows>;
  /** Frees the memory of both. */
  close(): Promise<void>;
}

/** Opens both networks on what is asked for, or on the best that passes. */
export async function openTowers(
  base: string,
  manifest: Manifest,
  wanted: Backend | "auto",
  tell: Progress,
): Promise<Towers> {
  const files = {
    image: await fetchRole(base, manifest, "image", tell),
    text: await fetchRole(base, manifest, "text", tell),
  };
  if (wanted !== "wasm") {
    const found = (await hasGpu()) ? await tryGpu(base, manifest, files, tell) : undefined;
    if (found !== undefined) return found;
    if (wanted === "webgpu") throw new UserError("This browser has no WebGPU that runs this model.");
  }
  return open(base, manifest, files, "wasm", tell);
}

/** WebGPU, and the way in which its results come back to WebAssembly. */
async function hasGpu(): Promise<boolean> {
  if (!("gpu" in navigator) || !("Suspending" in WebAssembly)) return false;
  try {
    return (await (navigator.gpu as { requestAdapter(): Promise<unknown> }).requestAdapter()) !== null;
  } catch {
    return false;
  }
}

/** The GPU, if it gives the embeddings that the probes carry; whatever it fails with, there is WebAssembly. */
async function tryGpu(
  base: string,
  manifest: Manifest,
  files: Record<Role, ArrayBuffer>,
  tell: Progress,
): Promise<Towers | undefined> {
  const probes = readSafetensors(await fetchRole(base, manifest, "probes"), "probes.safetensors");
  try {
    const towers = await open(base, manifest, files, "webgpu", tell);
    for (const role of ["image", "text"] as const) {
      const inputs = stored(probes, `${role}.inputs`, "probes.safetensors");
      const embed = stored(probes, `${role}.embed`, "probes.safetensors");
      const [num, width] = embed.shape as [number, number];
      const length = inputs.shape.slice(1).reduce((product, one) => product * one, 1);
      const cut = <T>(values: { slice(a: number, b: number): T }): T[] =>
        Array.from({ length: num }, (_, i) => values.slice(i * length, (i + 1) * length));
      const found =
        role === "image" ? await towers.images(cut(inputs.bytes)) : await towers.texts(cut(asIntegers(inputs)));
      if (worstCosine(found, { num, width, values: asFloat32(embed) }) < MIN_COSINE) {
        await towers.close();
        return undefined;
      }
    }
    return towers;
  } catch (error) {
    console.info("WebGPU is not used:", error);
    return undefined;
  }
}

async function open(
  base: string,
  manifest: Manifest,
  files: Record<Role, ArrayBuffer>,
  backend: Backend,
  tell: Progress,
): Promise<Towers> {
  const ort = await start(base, backend, tell);
  const sessions = { image: await session(ort, files.image, backend), text: await session(ort, files.text, backend) };
  const { preprocess, pixels, context_length } = manifest;
  const { size } = preprocess;
  return {
    backend,
    threads: ort.env.wasm.numThreads ?? 1,
    images: async (pictures) => {
      const num = pictures.length;
      if (pixels === "float32") {
        return run(sessions.image, new ort.Tensor("float32", normalise(pictures, preprocess), [num, 3, size, size]));
      }
      const joined = new Uint8Array(num * size * size * 3);
      pictures.forEach((one, i) => joined.set(one, i * one.length));
      return run(sessions.image, new ort.Tensor("uint8", joined, [num, size, size, 3]));
    },
    texts: async (tokens) => {
      const ids = BigInt64Array.from(tokens.flat(), BigInt);
      return run(sessions.text, new ort.Tensor("int64", ids, [tokens.length, context_length]));
    },
    close: async () => {
      await sessions.image.release();
      await sessions.text.release();
    },
  };
}

async function start(base: string, backend: Backend, tell: Progress): Promise<Ort> {
  const ort = backend === "webgpu" ? await import("onnxruntime-web/jspi") : await import("onnxruntime-web/wasm");
  const name = backend === "webgpu" ? "ort-webgpu" : "ort-wasm";
  ort.env.logLevel = "error";
  await fetchBytes(base, `assets/${name}.mjs`); // if it is missing, this says so better than an import
  ort.env.wasm.wasmPaths = { mjs: new URL(`assets/${name}.mjs`, base).href };
  ort.env.wasm.wasmBinary = await fetchPacked(base, `assets/${name}.wasm.gz`, tell);
  ort.env.wasm.numThreads = crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1;
  return ort as Ort;
}

async function session(ort: Ort, file: ArrayBuffer, backend: Backend): Promise<InferenceSession> {
  try {
    return await ort.InferenceSession.create(new Uint8Array(file), { executionProviders: [backend] });
  } catch (error) {
    throw new UserError(`The model cannot be loaded (${String(error)}): export it again, or update the browser.`);
  }
}

async function run(session: InferenceSession, input: Tensor): Promise<Rows> {
  const answer = await session.run({ [session.inputNames[0] as string]: input });
  const output = answer[session.outputNames[0] as string] as Tensor;
  const [num, width] = output.dims as [number, number];
  const values = ((await output.getData()) as Float32Array).slice();
  output.dispose();
  return { num, width, values };
}
