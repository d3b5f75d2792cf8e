/** Character references of HTML, as the standard's parser reads them. */

import names from "./entities.json";

const NAMED: ReadonlyMap<string, string> = new Map(Object.entries(names));

// Numbers that the standard's parser replaces: Windows-1252 stands where Unicode has control characters.
const WINDOWS = new TextDecoder("windows-1252");
const REFERENCE = /&(#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)/gu;

/** Text with every reference resolved, those without a semicolon too, wherever the standard's parser would. */
export function unescape(text: string): string {
  return text.includes("&") ? text.replace(REFERENCE, (_, inner: string) => resolve(inner)) : text;
}

/** The characters of a named reference ("eacute;", "amp"); undefined where there is none of that name. */
export function named(name: string): string | undefined {
  return NAMED.get(name);
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
  if (code >= 0x80 && code <= 0x9f) return WINDOWS.decode(Uint8Array.of(code));
  if ((code >= 0xd800 && code <= 0xdfff) || code > 0x10ffff) return "\ufffd";
  return isForbidden(code) ? "" : String.fromCodePoint(code);
}

/** Control characters and non-characters: they are dropped. */
function isForbidden(code: number): boolean {
  const isControl = (code >= 0x1 && code <= 0x8) || (code >= 0xe && code <= 0x1f) || code === 0xb || code === 0x7f;
  return isControl || (code >= 0xfdd0 && code <= 0xfdef) || (code & 0xfffe) === 0xfffe;
}
