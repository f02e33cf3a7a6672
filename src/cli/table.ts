// Text tables for the terminal: columns are as wide as their widest cell, numbers are aligned to the right.

export interface Column<T> {
  title: string;
  align?: "left" | "right";
  cell: (row: T) => string;
}

/**
 * One line for the titles and one per row, without trailing spaces. Columns with only empty cells are omitted. Control characters in cells
 * become "?", because names come from config files and from clients.
 */
export function table<T>(columns: readonly Column<T>[], rows: readonly T[]): string[] {
  const cells = columns.map(({ cell }) => rows.map((row) => printable(cell(row))));
  const shown = columns
    .map((column, i) => ({ column, cells: cells[i] ?? [] }))
    .filter(({ cells }) => rows.length === 0 || cells.some((cell) => cell !== ""));
  const widths = shown.map(({ column, cells }) => Math.max(...[column.title, ...cells].map((cell) => width(cell))));
  const line = (texts: readonly string[]): string =>
    texts
      .map((text, i) => padded(text, widths[i] ?? 0, shown[i]?.column.align ?? "left"))
      .join("  ")
      .trimEnd();
  return [
    line(shown.map(({ column }) => column.title)),
    ...rows.map((_, r) => line(shown.map(({ cells }) => cells[r] ?? ""))),
  ];
}

/** Text without control characters, which could control the terminal. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "?");
}

/** The number of terminal columns that the text takes. */
export function width(text: string): number {
  return Bun.stringWidth(text);
}

/** The text padded with spaces to this many columns. */
export function padded(text: string, columns: number, align: "left" | "right"): string {
  const spaces = " ".repeat(Math.max(0, columns - width(text)));
  return align === "left" ? text + spaces : spaces + text;
}
