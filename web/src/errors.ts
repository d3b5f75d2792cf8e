/** Failures that are told to people as they are. */

/** Its message is one sentence: what is wrong, and what to do. */
export class UserError extends Error {
  override readonly name = "UserError";
}

/** One sentence for people, whatever was thrown. */
export function sentence(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
