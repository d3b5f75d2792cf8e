// Drawing a box over the open picture, by pointer or by keys; the box is fractions of the picture.

import { byId, element } from "./elements.js";

const LEAST = 0.03;
const STEP = 0.02;
let area = null;
let box = null;
let crop = { left: 0.25, top: 0.25, right: 0.75, bottom: 0.75 };
let done = () => {};

export const isOn = () => area !== null;

// Lays the box over a picture; `search` is called with "left,top,right,bottom".
export function start(picture, search) {
  stop();
  done = search;
  crop = { left: 0.25, top: 0.25, right: 0.75, bottom: 0.75 };
  box = element("div", { className: "crop-box", tabIndex: 0, role: "group" });
  area = element("div", { className: "crop-area" }, box);
  byId("shown").append(area);
  byId("stage").classList.add("cropping");
  byId("crop-tools").hidden = false;
  cover(picture);
  draw();
  area.addEventListener("pointerdown", drag);
  box.addEventListener("keydown", move);
  box.focus();
  area.resize = new ResizeObserver(() => cover(picture));
  area.resize.observe(byId("shown"));
}

export function stop() {
  if (!area) return;
  area.resize?.disconnect();
  area.remove();
  area = box = null;
  byId("stage").classList.remove("cropping");
  byId("crop-tools").hidden = true;
}

export function search() {
  const text = [crop.left, crop.top, crop.right, crop.bottom].map((part) => Number(part.toFixed(4))).join(",");
  stop();
  done(text);
}

function cover(picture) {
  const around = byId("shown").getBoundingClientRect();
  const place = picture.getBoundingClientRect();
  Object.assign(area.style, {
    left: `${place.left - around.left}px`, top: `${place.top - around.top}px`,
    width: `${place.width}px`, height: `${place.height}px`,
  });
}

function draw() {
  const percent = (part) => `${part * 100}%`;
  Object.assign(box.style, {
    left: percent(crop.left), top: percent(crop.top),
    width: percent(crop.right - crop.left), height: percent(crop.bottom - crop.top),
  });
  const whole = (part) => Math.round(part * 100);
  box.setAttribute("aria-label", `Part to search for: ${whole(crop.left)} to ${whole(crop.right)} percent across, ` +
    `${whole(crop.top)} to ${whole(crop.bottom)} percent down. Arrows move it, with Shift they resize it, Enter searches.`);
}

const within = (value) => Math.min(1, Math.max(0, value));

function drag(event) {
  event.preventDefault();
  const place = area.getBoundingClientRect();
  const at = (moved) => [within((moved.clientX - place.left) / place.width), within((moved.clientY - place.top) / place.height)];
  const [x, y] = at(event);
  const before = { ...crop };
  const moves = event.target === box;
  area.setPointerCapture(event.pointerId);
  const follow = (moved) => {
    const [toX, toY] = at(moved);
    if (moves) shift(before, toX - x, toY - y);
    else crop = { left: Math.min(x, toX), top: Math.min(y, toY), right: Math.max(x, toX), bottom: Math.max(y, toY) };
    draw();
  };
  const end = () => {
    area?.removeEventListener("pointermove", follow);
    if (crop.right - crop.left < LEAST || crop.bottom - crop.top < LEAST) crop = before;
    if (area) {
      draw();
      box.focus();
    }
  };
  area.addEventListener("pointermove", follow);
  area.addEventListener("pointerup", end, { once: true });
  area.addEventListener("pointercancel", end, { once: true });
}

function shift(from, byX, byY) {
  const width = from.right - from.left;
  const height = from.bottom - from.top;
  const left = Math.min(1 - width, Math.max(0, from.left + byX));
  const top = Math.min(1 - height, Math.max(0, from.top + byY));
  crop = { left, top, right: left + width, bottom: top + height };
}

function move(event) {
  const steps = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
  const step = steps[event.key];
  if (event.key === "Enter") {
    event.preventDefault();
    search();
  }
  if (!step) return;
  event.preventDefault();
  event.stopPropagation();
  if (event.shiftKey) {
    crop = { ...crop, right: Math.max(crop.left + LEAST, within(crop.right + step[0])), bottom: Math.max(crop.top + LEAST, within(crop.bottom + step[1])) };
  } else {
    shift(crop, ...step);
  }
  draw();
}
