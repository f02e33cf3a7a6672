// Sorting and filtering of the rows that people see, in the terminal and in the dashboard.

/** Numbers by value, NaN (no number) after all others; texts as people sort them: b2 before b10. */
export function compare(a: number | string, b: number | string): number {
  if (typeof a === "number" && typeof b === "number") {
    if (Number.isNaN(a) || Number.isNaN(b)) return Number(Number.isNaN(a)) - Number(Number.isNaN(b));
    return a - b;
  }
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

/** Whether a text contains every word of `filter`, in any case. */
export function matcherOf(filter: string): (text: string) => boolean {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  return (text) => {
    const all = text.toLowerCase();
    return words.every((word) => all.includes(word));
  };
}
