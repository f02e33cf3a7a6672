// The arithmetic of the rounds and the report: order, medians, spreads, ratios per round, quantiles.

/** The median of some numbers and their spread. */
export interface Spread {
  median: number;
  min: number;
  max: number;
}

export function spreadOf(values: readonly number[]): Spread | undefined {
  if (values.length === 0) return undefined;
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = at(sorted, middle);
  const median = sorted.length % 2 === 1 ? upper : (at(sorted, middle - 1) + upper) / 2;
  return { median, min: at(sorted, 0), max: at(sorted, sorted.length - 1) };
}

/**
 * Ratios of the rounds in which both were measured. Both were measured within seconds of each other, so a disturbance of the machine
 * affects both.
 */
export function pairedRatios(ours: readonly (number | undefined)[], theirs: readonly (number | undefined)[]): number[] {
  return ours.flatMap((value, round) => {
    const other = theirs[round];
    return value === undefined || other === undefined || other === 0 ? [] : [value / other];
  });
}

/** Student's t for a two-sided 95 % interval, by degrees of freedom from 1; for more than the table, that of the normal distribution. */
const T95 = [
  12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131, 2.12, 2.11,
  2.101, 2.093, 2.086, 2.08, 2.074, 2.069, 2.064, 2.06, 2.056, 2.052, 2.048, 2.045, 2.042,
];

export interface Interval {
  /** Geometric mean. */
  mean: number;
  low: number;
  high: number;
}

/** The 95 % confidence interval of a ratio's geometric mean (Student's t over logarithms); undefined for fewer than two ratios. */
export function interval95(ratios: readonly number[]): Interval | undefined {
  const n = ratios.length;
  if (n < 2) return undefined;
  const logs = ratios.map(Math.log);
  const mean = logs.reduce((sum, log) => sum + log, 0) / n;
  const variance = logs.reduce((sum, log) => sum + (log - mean) ** 2, 0) / (n - 1);
  const half = (T95[n - 2] ?? 1.96) * Math.sqrt(variance / n);
  return { mean: Math.exp(mean), low: Math.exp(mean - half), high: Math.exp(mean + half) };
}

/** The quantile of sorted values for a share from 0 to 1, by nearest rank. */
export function quantile(sorted: ArrayLike<number>, share: number): number {
  if (sorted.length === 0) throw new Error("quantile of nothing");
  return at(sorted, Math.max(0, Math.ceil(share * sorted.length) - 1));
}

/** The same order, rotated by one in each round, so that no contender always follows the same one. */
export function rotated<T>(items: T[], by: number): T[] {
  const shift = by % Math.max(1, items.length);
  return [...items.slice(shift), ...items.slice(0, shift)];
}

function at(values: ArrayLike<number>, index: number): number {
  const value = values[index];
  if (value === undefined) throw new Error(`no value at ${index} of ${values.length}`);
  return value;
}
