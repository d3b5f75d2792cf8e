/** `manifest.json` and the files it names. */

import { UserError } from "./errors";
import type { Preprocess } from "./preprocess";
import type { Order } from "./resize";

const FORMAT = "pocketclip-export";
const VERSION = 2;

interface ExportedFile {
  readonly name: string;
  readonly num_bytes: number;
}

export interface Manifest {
  readonly model: string;
  readonly embed_dim: number;
  readonly logit_scale: number;
  readonly preprocess: Preprocess;
  readonly context_length: number;
  readonly precision: string;
  readonly pixels: "float32" | "uint8";
  readonly settings: { readonly resize_order: Order; readonly pictures?: string };
  readonly files: Readonly<Record<string, ExportedFile>>;
  readonly parity: { readonly passed?: boolean };
}

export type Progress = (name: string, done: number, total: number) => void;

/** Reads `manifest.json` of the folder at `base`. */
export async function readManifest(base: string): Promise<Manifest> {
  const text = new TextDecoder().decode(await fetchBytes(base, "manifest.json"));
  let manifest;
  try {
    manifest = JSON.parse(text) as Manifest & { format?: string; version?: number };
  } catch (error) {
    throw new UserError(`manifest.json is not JSON (${String(error)}): copy the folder again, whole.`);
  }
  if (manifest.format !== FORMAT || manifest.version !== VERSION) {
    throw new UserError("manifest.json is of another version than this page: export the checkpoint again.");
  }
  return manifest;
}

/** Bytes of what a file of the manifest is for ("image", "tokenizer"); their number must be the manifest's. */
export async function fetchRole(base: string, manifest: Manifest, role: string, tell?: Progress): Promise<ArrayBuffer> {
  const file = manifest.files[role];
  if (file === undefined) throw new UserError(`This model was exported without its ${role}: export it again.`);
  const bytes = await fetchBytes(base, file.name, file.num_bytes, tell);
  if (bytes.byteLength !== file.num_bytes) {
    throw new UserError(
      `${file.name} has ${bytes.byteLength} bytes and the manifest says ${file.num_bytes}: ` +
        "it was cut or changed; copy the folder again, whole.",
    );
  }
  return bytes;
}

/** Bytes of a file beside the page. */
export async function fetchBytes(base: string, name: string, total = 0, tell?: Progress): Promise<ArrayBuffer> {
  let answer;
  try {
    answer = await fetch(new URL(name, base));
  } catch {
    throw new UserError(`${name} cannot be fetched: the server that gave this page no longer answers.`);
  }
  if (!answer.ok) {
    throw new UserError(
      answer.status === 404
        ? `${name} is missing beside index.html: copy the folder again, whole.`
        : `${name} cannot be fetched: the server answers ${answer.status}.`,
    );
  }
  if (tell === undefined || answer.body === null) return answer.arrayBuffer();
  const parts = [];
  let done = 0;
  for (const reader = answer.body.getReader(); ; ) {
    const { value } = await reader.read();
    if (value === undefined) break;
    parts.push(value);
    done += value.byteLength;
    tell(name, done, total);
  }
  return new Blob(parts).arrayBuffer();
}

/** Bytes of a file that is kept as gzip; some servers unpack such files on their way. */
export async function fetchPacked(base: string, name: string, tell?: Progress): Promise<ArrayBuffer> {
  const bytes = await fetchBytes(base, name, 0, tell);
  const head = new Uint8Array(bytes, 0, 2);
  if (head[0] !== 0x1f || head[1] !== 0x8b) return bytes;
  const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  try {
    return await new Response(unpacked).arrayBuffer();
  } catch {
    throw new UserError(`${name} is damaged: copy the folder again, whole.`);
  }
}
