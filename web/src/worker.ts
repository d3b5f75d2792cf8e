/** The engine in a thread of its own, so that the page never stands still. One request at a time. */

import { Engine } from "./engine";
import { sentence } from "./errors";
import type { Answer, Request } from "./messages";

let engine: Engine | undefined;
let queue: Promise<unknown> = Promise.resolve();

self.addEventListener("message", ({ data }: MessageEvent<Request>) => {
  queue = queue.then(() => answer(data));
});

async function answer(request: Request): Promise<void> {
  try {
    tell({ id: request.id, result: await work(request) });
  } catch (error) {
    if (!(error instanceof Error && error.name === "UserError")) console.error(error);
    tell({ id: request.id, problem: sentence(error) });
  }
}

async function work(request: Request): Promise<unknown> {
  if ("open" in request) {
    const { base, backend } = request.open;
    engine = await Engine.open(base, backend, (name, done, total) => tell({ progress: { name, done, total } }));
    return engine.facts;
  }
  if (engine === undefined) throw new Error("the model is not open");
  const method = engine[request.method] as (...input: readonly unknown[]) => unknown;
  return method.apply(engine, request.input as unknown[]);
}

function tell(answer: Answer): void {
  self.postMessage(answer);
}
