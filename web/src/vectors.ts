/** Embeddings: what labels and pictures have to do with each other. */

/** N rows of D numbers, one after the other. */
export interface Rows {
  readonly num: number;
  readonly width: number;
  readonly values: Float32Array;
}

export function row({ width, values }: Rows, i: number): Float32Array {
  return values.subarray(i * width, (i + 1) * width);
}

export function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number);
  return sum;
}

/** Mean of groups of `group` rows, scaled to length 1 again: an embedding for each label out of its prompts'. */
export function meanOf(rows: Rows, group: number): Rows {
  const num = rows.num / group;
  const values = new Float32Array(num * rows.width);
  for (let i = 0; i < rows.num; i++) {
    const target = values.subarray(Math.floor(i / group) * rows.width);
    row(rows, i).forEach((value, d) => (target[d] = (target[d] as number) + value));
  }
  for (let i = 0; i < num; i++) {
    const one = values.subarray(i * rows.width, (i + 1) * rows.width);
    const length = Math.sqrt(dot(one, one));
    one.forEach((value, d) => (one[d] = value / length));
  }
  return { num, width: rows.width, values };
}

/** Softmax of scaled cosines of one picture with every label. */
export function odds(image: Float32Array, labels: Rows, scale: number): number[] {
  const logits = Array.from({ length: labels.num }, (_, i) => scale * dot(image, row(labels, i)));
  const highest = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - highest));
  const total = powers.reduce((sum, one) => sum + one, 0);
  return powers.map((one) => one / total);
}

/** Smallest cosine of corresponding rows; -1 where shapes differ or numbers are not finite. */
export function worstCosine(found: Rows, expected: Rows): number {
  if (found.num !== expected.num || found.width !== expected.width) return -1;
  let worst = 1;
  for (let i = 0; i < found.num; i++) {
    const [a, b] = [row(found, i), row(expected, i)];
    const cosine = dot(a, b) / Math.max(Math.sqrt(dot(a, a) * dot(b, b)), 1e-30);
    worst = Number.isFinite(cosine) ? Math.min(worst, cosine) : -1;
  }
  return worst;
}
