/** The page's end of the worker: calls become messages, answers become promises. */

import { UserError } from "./errors";
import type { Answer, Facts, Input, Method, Request, Result } from "./messages";
import type { Progress } from "./manifest";
import type { Backend } from "./towers";

interface Waiting {
  resolve(value: unknown): void;
  reject(reason: unknown): void;
}

export class Client {
  private readonly worker: Worker;
  private readonly waiting = new Map<number, Waiting>();
  private lastId = 0;

  constructor(base: string, tell: Progress) {
    this.worker = new Worker(new URL("assets/worker.js", base), { type: "module" });
    this.worker.addEventListener("message", ({ data }: MessageEvent<Answer>) => {
      if ("progress" in data) tell(data.progress.name, data.progress.done, data.progress.total);
      else this.settle(data);
    });
    this.worker.addEventListener("error", () => {
      const lost = new UserError("The page's program could not be loaded: a file under assets/ is missing or damaged.");
      for (const one of this.waiting.values()) one.reject(lost);
      this.waiting.clear();
    });
  }

  open(base: string, backend: Backend | "auto"): Promise<Facts> {
    return this.send((id) => ({ id, open: { base, backend } })) as Promise<Facts>;
  }

  call<M extends Method>(method: M, ...input: Input<M>): Promise<Result<M>> {
    const bitmaps = input.flat().filter((one) => one instanceof ImageBitmap);
    return this.send((id) => ({ id, method, input }), bitmaps) as Promise<Result<M>>;
  }

  private send(request: (id: number) => Request, transfer: Transferable[] = []): Promise<unknown> {
    const id = ++this.lastId;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage(request(id), transfer);
    });
  }

  private settle(answer: Exclude<Answer, { progress: unknown }>): void {
    const one = this.waiting.get(answer.id);
    this.waiting.delete(answer.id);
    if ("problem" in answer) one?.reject(new UserError(answer.problem));
    else one?.resolve(answer.result);
  }
}
