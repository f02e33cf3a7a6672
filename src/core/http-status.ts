// Sets of HTTP status codes in the notation of the config: "200-399", "200,204,301-303".

/** A range of status codes, both ends included. */
export type StatusRange = readonly [first: number, last: number];

/** The ranges of a text, or null if it is not valid. Codes have three digits, 100 to 599. */
export function parseStatusRanges(text: string): StatusRange[] | null {
  const ranges: StatusRange[] = [];
  for (const part of text.split(",")) {
    const [, from, to] = /^ *([1-5]\d\d)(?: *- *([1-5]\d\d))? *$/.exec(part) ?? [];
    if (from === undefined) return null;
    const range: StatusRange = [Number(from), Number(to ?? from)];
    if (range[0] > range[1]) return null;
    ranges.push(range);
  }
  return ranges;
}

/** "200-299, 404". */
export function formatStatusRanges(ranges: readonly StatusRange[]): string {
  return ranges.map(([first, last]) => (first === last ? String(first) : `${first}-${last}`)).join(", ");
}
