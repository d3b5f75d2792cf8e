/** CLIP's cleaning of a text: repair, unescape HTML twice, collapse white space, lower the case. */

import { named, unescape, windows } from "./entities";

// What Python calls white space. JavaScript's \s has U+FEFF besides, and lacks U+0085 and the separators 1C to 1F.
const SPACE = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const SPACES = new RegExp(`[${SPACE}]+`, "gu");

const PLAIN = /^[\x20-\x25\x27-\x7e]*$/; // printable ASCII without "&": nothing to repair or unescape
const LONGEST_SEGMENT = 1_000_000;

const LIGATURES: Readonly<Record<string, string>> = {
  "\u0132": "IJ",
  "\u0133": "ij",
  "\u0149": "\u02bcn",
  "\u01f1": "DZ",
  "\u01f2": "Dz",
  "\u01f3": "dz",
  "\u01c4": "D\u017d",
  "\u01c5": "D\u017e",
  "\u01c6": "d\u017e",
  "\u01c7": "LJ",
  "\u01c8": "Lj",
  "\u01c9": "lj",
  "\u01ca": "NJ",
  "\u01cb": "Nj",
  "\u01cc": "nj",
  "\ufb00": "ff",
  "\ufb01": "fi",
  "\ufb02": "fl",
  "\ufb03": "ffi",
  "\ufb04": "ffl",
  "\ufb05": "\u017ft",
  "\ufb06": "st",
};
const LIGATURE = new RegExp(`[${Object.keys(LIGATURES).join("")}]`, "gu");

/**
 * A text as the tokenizer of Python cleans it, but for mojibake ("cafÃ©"), which stays as it is here: Python's ftfy
 * guesses what such a text was.
 */
export function clean(text: string): string {
  const repaired = PLAIN.test(text) ? text : unescape(unescape(repair(text)));
  return repaired.replace(SPACES, " ").replace(/^ | $/g, "").toLowerCase();
}

/** Line by line, until nothing changes. A line with "<" in it, and those after it, keep their references. */
function repair(text: string): string {
  let mayUnescape = true;
  const lines = text.match(/[^\n]*\n|[^\n]+/gu) ?? [];
  const repaired = [];
  for (const line of lines) {
    for (let start = 0; start < line.length; start += LONGEST_SEGMENT) {
      const segment = line.slice(start, start + LONGEST_SEGMENT);
      mayUnescape &&= !segment.includes("<");
      repaired.push(repairSegment(segment, mayUnescape));
    }
  }
  return repaired.join("");
}

function repairSegment(segment: string, mayUnescape: boolean): string {
  for (;;) {
    const before = segment;
    if (mayUnescape) segment = segment.replace(/&#?[0-9A-Za-z]{1,24};/g, whole);
    segment = repairOnce(segment);
    if (segment === before) return segment;
  }
}

function repairOnce(text: string): string {
  return text
    .replace(/[\x80-\x9f]/g, (one) => windows(one.charCodeAt(0)))
    .replace(LIGATURE, (one) => LIGATURES[one] ?? one)
    .replace(/[\u3000\uff01-\uffef]/g, (one) => one.normalize("NFKC")) // full and half width
    .replace(/[\u02bc\u2018-\u201b]/g, "'")
    .replace(/[\u201c-\u201f]/g, '"')
    .replace(/\r\n|[\r\u2028\u2029\x85]/g, "\n")
    .replace(/\p{Surrogate}/gu, "\ufffd") // those without their other half
    .replace(/\x1b\[(?:\p{Nd}|;)*[a-zA-Z]/gu, "") // colours of terminals
    .replace(/[\0-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]/g, "")
    .normalize("NFC");
}

/** One reference that ends in a semicolon; capitals are read where only the small letters are a name. */
function whole(reference: string): string {
  if (reference.startsWith("&#")) {
    const found = unescape(reference);
    return found.includes(";") ? reference : found;
  }
  const name = reference.slice(1);
  const found = named(name);
  if (found !== undefined) return found;
  const small = name.toLowerCase();
  const isShouted = name === name.toUpperCase() && unescape(reference) === reference;
  const meant = isShouted ? named(small) : undefined;
  return meant?.toUpperCase() ?? reference;
}
