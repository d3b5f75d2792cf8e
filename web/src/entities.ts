/** Character references of HTML, as the standard's parser reads them. */

import names from "./entities.json";

const NAMED: ReadonlyMap<string, string> = new Map(Object.entries(names));

// Windows-1252 from 80 to 9F, where Unicode has control characters. TextDecoder would know, but not that of every Node.
const WINDOWS =
  "\u20ac\u0081\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\u008d\u017d\u008f" +
  "\u0090\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u009d\u017e\u0178";
const REFERENCE = /&(#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)/gu;

/** Text with every reference resolved, those without a semicolon too, wherever the standard's parser would. */
export function unescape(text: string): string {
  return text.includes("&") ? text.replace(REFERENCE, (_, inner: string) => resolve(inner)) : text;
}

/** The characters of a named reference ("eacute;", "amp"); undefined where there is none of that name. */
export function named(name: string): string | undefined {
  return NAMED.get(name);
}

/** What Windows has where Unicode has the control character of this number, 80 to 9F. */
export function windows(code: number): string {
  return WINDOWS[code - 0x80] as string;
}

function resolve(inner: string): string {
  if (inner.startsWith("#")) return numbered(inner);
  const whole = NAMED.get(inner);
  if (whole !== undefined) return whole;
  for (let length = inner.length - 1; length > 1; length--) {
    const found = NAMED.get(inner.slice(0, length));
    if (found !== undefined) return found + inner.slice(length);
  }
  return `&${inner}`;
}

function numbered(inner: string): string {
  const digits = inner.replace(";", "");
  const code = /^#[xX]/.test(digits) ? parseInt(digits.slice(2), 16) : parseInt(digits.slice(1), 10);
  if (code === 0) return "\ufffd";
  if (code === 0x0d) return "\r";
  if (code >= 0x80 && code <= 0x9f) return windows(code);
  if ((code >= 0xd800 && code <= 0xdfff) || code > 0x10ffff) return "\ufffd";
  return isForbidden(code) ? "" : String.fromCodePoint(code);
}

/** Control characters and non-characters: they are dropped. */
function isForbidden(code: number): boolean {
  const isControl = (code >= 0x1 && code <= 0x8) || (code >= 0xe && code <= 0x1f) || code === 0xb || code === 0x7f;
  return isControl || (code >= 0xfdd0 && code <= 0xfdef) || (code & 0xfffe) === 0xfffe;
}
