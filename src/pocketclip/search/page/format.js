// Numbers, dates and sizes for people.

const whole = new Intl.NumberFormat("en");
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "long", timeStyle: "short" });

export const number = (value) => whole.format(value);

export const pictures = (value) => (value === 1 ? "1 picture" : `${number(value)} pictures`);

export function date(iso) {
  const parsed = new Date(iso);
  return Number.isNaN(parsed.getTime()) ? iso : day.format(parsed);
}

export function bytes(value) {
  const units = ["bytes", "kB", "MB", "GB"];
  let step = 0;
  while (value >= 1000 && step < units.length - 1) {
    value /= 1000;
    step += 1;
  }
  return `${step ? value.toPrecision(3) : value} ${units[step]}`;
}

export function clock(seconds) {
  const all = Math.floor(seconds);
  const two = (value) => String(value).padStart(2, "0");
  const hours = Math.floor(all / 3600);
  const minutes = Math.floor(all / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(all % 60)}` : `${minutes}:${two(all % 60)}`;
}

export function place(latitude, longitude) {
  const side = (value, positive, negative) => `${Math.abs(value).toFixed(4)}° ${value < 0 ? negative : positive}`;
  return `${side(latitude, "N", "S")}, ${side(longitude, "E", "W")}`;
}
