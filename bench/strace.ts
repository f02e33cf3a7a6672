// Parses the output of strace.

/** System calls by name, for one exchange. */
export type Calls = Map<string, number>;

/** The calls in the table of `strace -c`, divided by the number of exchanges; throws if the table is empty. */
export function callsPer(exchanges: number, table: string): Calls {
  const calls: Calls = new Map();
  for (const line of table.split("\n")) {
    // Share, seconds, µs per call, calls, errors if there were any, name.
    const row = /^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)(?:\s+\d+)?\s+(\w+)$/.exec(line);
    const [, count, name] = row ?? [];
    if (count !== undefined && name !== undefined && name !== "total") calls.set(name, Number(count) / exchanges);
  }
  if (calls.size === 0) throw new Error(`strace counted nothing: ${table.trim()}`);
  return calls;
}
