// Rows of equal width from pictures of known sizes: nothing moves when the pictures arrive.

export const GAP = 6;
const NARROWEST = 0.45;
const WIDEST = 3;

export const aspect = (item) => Math.min(WIDEST, Math.max(NARROWEST, (item.width || 1) / (item.height || 1)));

// Boxes {left, top, width, height, row} for all items, the rows' {top, height, first, last}, and the height of it all.
export function justify(items, width, target, { isWhole = false } = {}) {
  const boxes = [];
  const rows = [];
  let top = 0;
  let first = 0;
  let sum = 0;
  const close = (last, height) => {
    let left = 0;
    for (let index = first; index <= last; index += 1) {
      const isEnd = index === last && Math.abs(height * sum + GAP * (last - first) - width) < 0.5;
      const boxWidth = isEnd ? width - left : height * aspect(items[index]);
      boxes.push({ left, top, width: boxWidth, height, row: rows.length });
      left += boxWidth + GAP;
    }
    rows.push({ top, height, first, last });
    top += height + GAP;
    first = last + 1;
    sum = 0;
  };
  for (let index = 0; index < items.length; index += 1) {
    sum += aspect(items[index]);
    const height = (width - GAP * (index - first)) / sum;
    if (height <= target) close(index, height);
  }
  if (first < items.length) {
    const fitting = (width - GAP * (items.length - 1 - first)) / sum;
    const nearlyFull = fitting < target * 1.25 && !isWhole;
    close(items.length - 1, nearlyFull ? fitting : Math.min(target, fitting));
  }
  return { boxes, rows, height: Math.max(0, top - GAP) };
}

// Indices of the first and the last row that a stretch of the page touches.
export function rowsBetween(rows, from, to) {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle].top + rows[middle].height < from) low = middle + 1;
    else high = middle;
  }
  let last = low;
  while (last < rows.length && rows[last].top <= to) last += 1;
  return [low, last - 1];
}

// The neighbour of a box in the next row up or down: the one whose middle is nearest.
export function neighbour(layout, index, step) {
  const { boxes, rows } = layout;
  const row = rows[boxes[index].row + step];
  if (!row) return -1;
  const middle = boxes[index].left + boxes[index].width / 2;
  let best = row.first;
  const distance = (other) => Math.abs(boxes[other].left + boxes[other].width / 2 - middle);
  for (let other = row.first; other <= row.last; other += 1) if (distance(other) < distance(best)) best = other;
  return best;
}
