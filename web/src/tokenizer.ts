/** Byte-pair encoding of CLIP: text to token ids, from an exported `tokenizer.json`. */

import { clean } from "./clean";
import { UserError } from "./errors";

const START_OF_TEXT = "<start_of_text>";
const END_OF_TEXT = "<end_of_text>";
const END_OF_WORD = "</w>";
const NUM_REMEMBERED = 65_536;

// White space as the pattern means it; JavaScript's \s differs.
const PATTERN_SPACE = "\\t-\\r\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";

interface TokenizerFile {
  pre_tokenizer: { pretokenizers: { type: string; pattern?: { Regex?: string } }[] };
  model: { vocab: Record<string, number>; merges: [string, string][] };
}

/** Text to ids, as pocketclip's tokenizer in Python gives them. */
export class Tokenizer {
  private readonly vocab: ReadonlyMap<string, number>;
  private readonly ranks: ReadonlyMap<string, number>;
  private readonly parts: RegExp;
  private readonly remembered = new Map<string, readonly number[]>();

  /**
   * @param text content of `tokenizer.json`
   * @param contextLength L, ids a text is padded or cut to, start and end included
   */
  constructor(
    text: string,
    readonly contextLength: number,
  ) {
    const { model, pattern } = parse(text);
    this.vocab = new Map(Object.entries(model.vocab));
    this.ranks = new Map(model.merges.map(([left, right], rank) => [`${left} ${right}`, rank]));
    this.parts = new RegExp(pattern.replaceAll("[^\\s", `[^${PATTERN_SPACE}`), "gu");
  }

  /** Ids [B][L]: start, tokens, end, then zeros. A text that is too long is cut before its end mark. */
  encodeAll(texts: readonly string[]): number[][] {
    return texts.map((text) => {
      const ids = this.encode(text).slice(0, this.contextLength - 2);
      const row = [this.id(START_OF_TEXT), ...ids, this.id(END_OF_TEXT)];
      return [...row, ...Array<number>(this.contextLength - row.length).fill(0)];
    });
  }

  /** Ids of one text of any length, without start, end or padding. */
  encode(text: string): number[] {
    const ids = [];
    for (const word of clean(text).split(" ")) {
      for (const [part] of word.matchAll(this.parts)) ids.push(...this.part(part));
    }
    return ids;
  }

  private part(part: string): readonly number[] {
    if (part === START_OF_TEXT || part === END_OF_TEXT) return [this.id(part)];
    let ids = this.remembered.get(part);
    if (ids === undefined) {
      ids = this.merge(part).map((token) => this.id(token));
      if (this.remembered.size >= NUM_REMEMBERED) this.remembered.clear();
      this.remembered.set(part, ids);
    }
    return ids;
  }

  /** Bytes, joined pair by pair: always the pair that was learned first, the leftmost of equals. */
  private merge(part: string): string[] {
    const tokens = Array.from(new TextEncoder().encode(part), (byte) => ALPHABET[byte] as string);
    tokens[tokens.length - 1] += END_OF_WORD;
    for (;;) {
      let best = Infinity;
      let at = -1;
      for (let i = 0; i + 1 < tokens.length; i++) {
        const rank = this.ranks.get(`${tokens[i]} ${tokens[i + 1]}`) ?? Infinity;
        if (rank < best) [best, at] = [rank, i];
      }
      if (at < 0) return tokens;
      tokens.splice(at, 2, `${tokens[at]}${tokens[at + 1]}`);
    }
  }

  private id(token: string): number {
    const id = this.vocab.get(token);
    if (id === undefined) throw new UserError(`tokenizer.json has no token ${token}: export the model again`);
    return id;
  }
}

function parse(text: string): { model: TokenizerFile["model"]; pattern: string } {
  try {
    const { model, pre_tokenizer } = JSON.parse(text) as TokenizerFile;
    const pattern = pre_tokenizer.pretokenizers.find((one) => one.type === "Split")?.pattern?.Regex;
    if (pattern === undefined || !Array.isArray(model.merges)) throw new TypeError("no pattern or no merges");
    return { model, pattern };
  } catch (error) {
    throw new UserError(`tokenizer.json cannot be used (${String(error)}): export the model again`);
  }
}

/** The printable stand-in of each byte: printable Latin-1 stands for itself, the others follow from U+0100 on. */
const ALPHABET: readonly string[] = (() => {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const isPrintable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xff && byte !== 0xad);
    return String.fromCodePoint(isPrintable ? byte : next++);
  });
})();
