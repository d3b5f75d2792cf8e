/** What the page and its worker tell each other. */

import type { Engine, Facts } from "./engine";
import type { Backend } from "./towers";

/** Methods of the engine that the page may call from afar. */
export type Method = "embedImages" | "embedTexts" | "tokens" | "pixels" | "find";

export type Request =
  | { readonly id: number; readonly open: { readonly base: string; readonly backend: Backend | "auto" } }
  | { readonly id: number; readonly method: Method; readonly input: readonly unknown[] };

export type Answer =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly problem: string }
  | { readonly progress: { readonly name: string; readonly done: number; readonly total: number } };

export type Input<M extends Method> = Parameters<Engine[M]>;
export type Result<M extends Method> = Awaited<ReturnType<Engine[M]>>;
export type { Facts };
