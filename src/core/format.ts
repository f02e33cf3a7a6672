// Figures for people: bytes, counts, durations, as the terminal and the dashboard show them. Short, and of about the same width
// whatever their size, so that columns stay narrow.

const BYTE_UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];
const COUNT_UNITS = ["", "k", "M", "G", "T"];

/** "512 B", "1.5 kB", "34 MB": decimal units, two significant digits or all digits of the whole part. */
export function formatBytes(bytes: number): string {
  return scaled(bytes, 1000, BYTE_UNITS, " ");
}

/** "1.5 MB/s". */
export function formatByteRate(bytesPerSecond: number): string {
  return `${formatBytes(bytesPerSecond)}/s`;
}

/** "950", "1.2k", "34M". */
export function formatCount(count: number): string {
  return scaled(count, 1000, COUNT_UNITS, "");
}

/** A rate per second: "0", "0.3", "12", "1.2k". */
export function formatRate(perSecond: number): string {
  return perSecond === 0 || perSecond >= 10 ? formatCount(perSecond) : perSecond.toFixed(1);
}

/** "350ms", "4s", "3m 20s", "5h 12m", "3d 4h": at most two units. */
export function formatDuration(ms: number): string {
  if (!Number.isFinite(ms)) return "-";
  if (ms < 1000) return `${Math.max(0, Math.round(ms))}ms`;
  const seconds = Math.floor(ms / 1000);
  if (seconds < 60) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return two(minutes, "m", seconds % 60, "s");
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return two(hours, "h", minutes % 60, "m");
  return two(Math.floor(hours / 24), "d", hours % 24, "h");
}

/** A latency: "0.25ms", "3.1ms", "120ms", "1.5s". */
export function formatLatency(ms: number): string {
  if (!Number.isFinite(ms)) return "-";
  if (ms >= 1000) return `${significant(ms / 1000)}s`;
  return `${significant(ms)}ms`;
}

/** For how long something has been blocked: "-" below a millisecond. */
export function formatBlocked(ms: number): string {
  return ms < 1 ? "-" : formatLatency(ms);
}

function scaled(value: number, step: number, units: readonly string[], gap: string): string {
  if (!Number.isFinite(value)) return "-";
  let unit = 0;
  // What would be rounded up to a whole step belongs to the next unit: 999,999 is "1.0M".
  while (unit < units.length - 1 && Math.round(value * (value < 10 ? 10 : 1)) >= step) {
    value /= step;
    unit++;
  }
  const digits = unit === 0 ? String(Math.round(value)) : significant(value);
  return units[unit] === "" ? digits : `${digits}${gap}${units[unit]}`;
}

// Two digits at least: 1.5, 15, 150.
function significant(value: number): string {
  if (value === 0) return "0";
  return value < 0.995 ? value.toFixed(2) : value < 9.95 ? value.toFixed(1) : String(Math.round(value));
}

function two(large: number, largeUnit: string, small: number, smallUnit: string): string {
  return small === 0 ? `${large}${largeUnit}` : `${large}${largeUnit} ${small}${smallUnit}`;
}
