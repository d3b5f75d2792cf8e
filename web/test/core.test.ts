/** Without a browser and without a model. That Python gives the same, `tests/export/test_web.py` shows. */

import { describe, expect, it } from "vitest";

import { clean } from "../src/clean";
import { unescape } from "../src/entities";
import { Gallery } from "../src/gallery";
import { normalise, square } from "../src/preprocess";
import { resize, type Source } from "../src/resize";
import { readSafetensors } from "../src/safetensors";
import { Tokenizer } from "../src/tokenizer";
import { meanOf, odds, worstCosine } from "../src/vectors";

/** Every pixel its column, its row and 7. */
function ramp(width: number, height: number): Source {
  const rows = (first: number, num: number): Uint8Array =>
    Uint8Array.from({ length: num * width * 4 }, (_, i) => {
      const pixel = Math.floor(i / 4);
      return [pixel % width, first + Math.floor(pixel / width), 7, 99][i % 4] as number;
    });
  return { width, height, rows };
}

describe("texts", () => {
  it("resolves references as HTML does", () => {
    expect(unescape("&lt;b&gt; &eacute &notit; &#x41;&#66 &#150; &#1; & &nothing; &zzz;")).toBe("<b> é ¬it; AB –  & ¬hing; &zzz;");
  });

  it("cleans", () => {
    expect(clean("  ＡB\u2028&amp;amp; “ﬁ” \u0000É ")).toBe('ab & "fi" é');
  });

  it("joins the pair first that was learned first", () => {
    const merges = [
      ["b", "c</w>"],
      ["a", "b"],
    ];
    const tokens = ["a", "b", "c</w>", "bc</w>", "ab", "<start_of_text>", "<end_of_text>"];
    const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
    const pre_tokenizer = { pretokenizers: [{ type: "Split", pattern: { Regex: "[\\p{L}]+|[^\\s\\p{L}]+" } }] };
    const tokenizer = new Tokenizer(JSON.stringify({ pre_tokenizer, model: { vocab, merges } }), 5);
    expect(tokenizer.encodeAll(["ABC", "", "abc abc"])).toEqual([
      [5, 0, 3, 6, 0],
      [5, 6, 0, 0, 0],
      [5, 0, 3, 0, 6],
    ]);
    expect(() => new Tokenizer("{}", 5)).toThrow("tokenizer.json cannot be used");
  });
});

describe("pictures", () => {
  const how = { interpolation: "bicubic", order: "pillow_13" } as const;

  it("leaves alone what has the size already", () => {
    const all = { size: 100, first: 0, num: 100 };
    expect(resize(ramp(100, 70), all, { size: 70, first: 3, num: 1 }, how).slice(0, 6)).toEqual(
      Uint8Array.of(0, 3, 7, 1, 3, 7),
    );
  });

  it("gives a part of the resized picture as it is in the whole", () => {
    const [columns, rows] = [
      { size: 40, first: 0, num: 40 },
      { size: 25, first: 0, num: 25 },
    ];
    const whole = resize(ramp(100, 70), columns, rows, how);
    const part = resize(ramp(100, 70), { ...columns, first: 11, num: 2 }, { ...rows, first: 9, num: 1 }, how);
    expect(part).toEqual(whole.slice((9 * 40 + 11) * 3, (9 * 40 + 13) * 3));
  });

  it("crops the centre", () => {
    const preprocess = { size: 2, mean: [0, 0, 0.5], std: [1, 1, 0.5], interpolation: "bilinear" } as const;
    const pixels = square(ramp(5, 2), preprocess, "pillow_13");
    expect(Array.from(pixels)).toEqual([2, 0, 7, 3, 0, 7, 2, 1, 7, 3, 1, 7]);
    expect(normalise([pixels], preprocess)[8]).toBeCloseTo((7 / 255 - 0.5) / 0.5, 6);
  });
});

describe("numbers", () => {
  it("makes odds of cosines", () => {
    const labels = meanOf({ num: 4, width: 2, values: Float32Array.of(1, 0, 1, 0, 0, 3, 0, 5) }, 2);
    expect(Array.from(labels.values)).toEqual([1, 0, 0, 1]);
    const [first, second] = odds(Float32Array.of(1, 0), labels, Math.log(3)) as [number, number];
    expect(first).toBeCloseTo(0.75);
    expect(second).toBeCloseTo(0.25);
  });

  it("never calls a broken number alike", () => {
    const one = { num: 1, width: 2, values: Float32Array.of(NaN, 1) };
    expect(worstCosine(one, { ...one, values: Float32Array.of(0, 1) })).toBe(-1);
  });

  it("says that a file is damaged", () => {
    expect(() => readSafetensors(new ArrayBuffer(3), "x.safetensors")).toThrow("x.safetensors is damaged");
    const empty = new TextEncoder().encode("\x02\0\0\0\0\0\0\0{}");
    expect(() => new Gallery(empty.buffer)).toThrow("pictures.safetensors lacks embed");
  });
});
