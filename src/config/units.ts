// Parser for texts with a unit: durations in milliseconds, sizes in bytes, bandwidths in bytes per second, rates in connections per
// second. Pure; for an invalid text the result is the reason.

/** A number, or why the text is not one. `meant` is the text that was probably meant. */
export type Quantity = { is: "number"; value: number } | { is: "bad"; why: string; meant?: string };

/** Milliseconds in one unit of a duration. */
const durationUnits: Units = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Bytes in one unit of a size. A bit is an eighth of a byte. */
const sizeUnits: Units = {
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  KiB: 1024,
  MiB: 1024 ** 2,
  GiB: 1024 ** 3,
  bit: 1 / 8,
  Kbit: 1e3 / 8,
  Mbit: 1e6 / 8,
  Gbit: 1e9 / 8,
};

/** Seconds in the period of a rate. */
const rateUnits: Units = { s: 1, m: 60, h: 3600 };

type Units = Readonly<Record<string, number>>;

/** The notation of each quantity, for the JSON Schema; the same units as above. */
export const patterns = {
  duration: /^\d+(\.\d+)?(ms|s|m|h|d)$/,
  size: /^\d+(\.\d+)?((K|M|G)(B|iB|bit)|B|bit)$/,
  bandwidth: /^\d+(\.\d+)?((K|M|G)(B|iB|bit)|B|bit)\/s$/,
  rate: /^\d+(\.\d+)?\/(s|m|h)$/,
} as const;

/** "250ms", "3s", "1.5m", "1h", "1d" → whole milliseconds. One number and one unit: "1h30m" is written "90m". */
export function parseDuration(text: string): Quantity {
  const split = splitNumber(text);
  if (split === null) return bad("a duration is a number with a unit");
  const unit = durationUnits[split.unit];
  if (unit === undefined) return unknownUnit(split, durationUnits);
  const ms = split.number * unit;
  if (ms > 0 && ms < 1) return bad("the shortest duration is 1ms");
  return { is: "number", value: Math.round(ms) };
}

/** "64KiB", "10MB", "500Kbit" → bytes, rounded down. */
export function parseSize(text: string): Quantity {
  const split = splitNumber(text);
  if (split === null) return bad("a size is a number with a unit");
  const unit = sizeUnits[split.unit];
  if (unit === undefined) return unknownUnit(split, sizeUnits);
  return { is: "number", value: Math.floor(split.number * unit) };
}

/** "10MB/s", "500Kbit/s" → bytes per second, rounded down. */
export function parseBandwidth(text: string): Quantity {
  if (!text.endsWith("/s")) {
    const size = parseSize(text);
    return size.is === "number" ? { ...bad('it must end in "/s"'), meant: `${text}/s` } : bad('it must end in "/s"');
  }
  const size = parseSize(text.slice(0, -2));
  return size.is === "bad" && size.meant !== undefined ? { ...size, meant: `${size.meant}/s` } : size;
}

/** "100/s", "600/m", "1000/h" → connections per second, as a fraction if necessary. */
export function parseRate(text: string): Quantity {
  const slash = text.indexOf("/");
  if (slash < 0) {
    const alone = /^\d+(\.\d+)?$/.test(text);
    return alone ? { ...bad("it lacks its period"), meant: `${text}/s` } : bad("a rate is a number for each period");
  }
  const split = splitNumber(text.slice(0, slash));
  if (split === null || split.unit !== "") return bad("a rate is a number for each period");
  const period = rateUnits[text.slice(slash + 1)];
  if (period === undefined) return bad(`its period must be one of ${list(rateUnits, "/")}`);
  return { is: "number", value: split.number / period };
}

/** Milliseconds as a duration would be written: 90000 → "90s". */
export function formatDuration(ms: number): string {
  if (ms === 0) return "0s";
  for (const unit of ["d", "h", "m", "s"]) {
    const size = durationUnits[unit];
    if (size !== undefined && ms % size === 0) return `${ms / size}${unit}`;
  }
  return `${ms}ms`;
}

interface Split {
  text: string;
  number: number;
  unit: string;
}

function splitNumber(text: string): Split | null {
  const match = /^(\d{1,15}(?:\.\d{1,15})?)(.*)$/s.exec(text);
  if (match === null) return null;
  return { text, number: Number(match[1]), unit: match[2] ?? "" };
}

function unknownUnit(split: Split, units: Units): Quantity {
  const why = `its unit ${split.unit === "" ? "is missing:" : "must be"} one of ${list(units, "")}`;
  const same = Object.keys(units).filter((unit) => unit.toLowerCase() === split.unit.trim().toLowerCase());
  const only = same.length === 1 ? same[0] : undefined;
  if (only === undefined) return bad(why);
  return { is: "bad", why, meant: `${split.text.slice(0, split.text.length - split.unit.length)}${only}` };
}

function list(units: Units, prefix: string): string {
  return Object.keys(units)
    .map((unit) => prefix + unit)
    .join(", ");
}

function bad(why: string): { is: "bad"; why: string } {
  return { is: "bad", why };
}
