// A picture to search by: dropped, pasted or picked; made smaller before it is sent.

import { byId } from "./elements.js";
import { change, state } from "./state.js";
import { thumbnail } from "./api.js";

const LONGEST = 1024;
const KEPT = 8;
const kept = new Map(); // key in the address -> { file, preview }
let next = 1;

export const fileOf = (key) => (key ? (kept.get(key)?.file ?? null) : null);
export const isKnown = (key) => kept.has(key);

export async function searchBy(file) {
  const small = await smaller(file);
  const key = String(next++);
  kept.set(key, { file: small, preview: URL.createObjectURL(small) });
  if (kept.size > KEPT) {
    const [oldest, { preview }] = kept.entries().next().value;
    URL.revokeObjectURL(preview);
    kept.delete(oldest);
  }
  change({ picture: key, like: null, crop: null, item: null });
}

// At most so many pixels a side. What the browser cannot read (HEIC in most) is sent as it is: the server may.
async function smaller(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return file;
  }
  const scale = LONGEST / Math.max(bitmap.width, bitmap.height);
  if (scale >= 1 && file.size < 2_000_000) return file;
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * Math.min(1, scale)));
  canvas.height = Math.max(1, Math.round(bitmap.height * Math.min(1, scale)));
  const pen = canvas.getContext("2d");
  pen.fillStyle = "white"; // where it is transparent, as the server would
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return new Promise((resolve) => canvas.toBlob((blob) => resolve(blob ?? file), "image/jpeg", 0.92));
}

// The little picture in the search box.
export function showChip(now = state()) {
  const chip = byId("chip");
  const picture = byId("chip-picture");
  chip.hidden = !(now.picture || now.like);
  if (chip.hidden) {
    picture.removeAttribute("src");
    return;
  }
  const source = now.picture ? kept.get(now.picture)?.preview : thumbnail(now.like);
  if (source && picture.getAttribute("src") !== source) picture.src = source;
  picture.alt = now.crop ? "Part of a picture to search by" : "Picture to search by";
  const [left, top, right, bottom] = (now.crop ?? "0,0,1,1").split(",").map((part) => Number(part) * 100);
  picture.style.objectViewBox = now.crop ? `inset(${top}% ${100 - right}% ${100 - bottom}% ${left}%)` : "";
}

const isPicture = (file) => file.type.startsWith("image/") || /\.(heic|heif|avif|tiff?)$/i.test(file.name);
const firstPicture = (files) => [...files].find(isPicture);

export function listen() {
  byId("pick").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", (event) => {
    const file = event.target.files[0];
    if (file) searchBy(file);
    event.target.value = "";
  });
  byId("chip-remove").addEventListener("click", () => {
    change({ picture: null, like: null, crop: null });
    byId("words").focus();
  });
  addEventListener("paste", (event) => {
    const file = firstPicture(event.clipboardData?.files ?? []);
    if (!file) return;
    event.preventDefault();
    searchBy(file);
  });
  let depth = 0;
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => {
    if (!carriesFiles(event)) return;
    depth += 1;
    byId("drop").hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!carriesFiles(event)) return;
    depth = Math.max(0, depth - 1);
    byId("drop").hidden = depth === 0;
  });
  addEventListener("dragover", (event) => carriesFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    depth = 0;
    byId("drop").hidden = true;
    if (!carriesFiles(event)) return;
    event.preventDefault();
    const file = firstPicture(event.dataTransfer.files);
    if (file) searchBy(file);
  });
}
