// Tables that stay fast with thousands of rows: only the visible rows are in the page. A click on a column title sorts.
import type { ComponentChildren } from "preact";
import { useRef, useState } from "preact/hooks";
import { compare } from "../core/rows.ts";

export interface DataColumn<T> {
  title: string;
  /** Numbers are aligned to the right. */
  isFigure?: boolean;
  /** The sort key; left out = not sortable. */
  value?: (row: T) => number | string;
  cell: (row: T) => ComponentChildren;
  /** Takes the width that the other columns leave. */
  wide?: boolean;
}

export interface DataTableProps<T> {
  caption: string;
  columns: readonly DataColumn<T>[];
  rows: readonly T[];
  keyOf: (row: T) => string;
  /** Shown if there are no rows. */
  empty: string;
  /** Maximum number of visible rows; more are scrolled. */
  rowsInSight?: number;
}

/** Pixels; the style sheet has the same value. */
const ROW_HEIGHT = 30;
/** Number of rows drawn above and below the visible ones. */
const MARGIN_ROWS = 10;

export function DataTable<T>({ caption, columns, rows, keyOf, empty, rowsInSight = 20 }: DataTableProps<T>) {
  const [sort, setSort] = useState<{ column: number; descending: boolean } | null>(null);
  const [top, setTop] = useState(0);
  const place = useRef<HTMLDivElement>(null);
  const sorted = sortedBy(rows, sort === null ? undefined : columns[sort.column]?.value, sort?.descending ?? false);
  const first = Math.max(0, Math.floor(top / ROW_HEIGHT) - MARGIN_ROWS);
  const count = rowsInSight + 2 * MARGIN_ROWS;
  const shown = sorted.slice(first, first + count);
  const below = Math.max(0, sorted.length - first - shown.length);
  const press = (column: number): void =>
    setSort(
      sort?.column === column
        ? { column, descending: !sort.descending }
        : { column, descending: columns[column]?.isFigure === true },
    );
  return (
    <div
      class="scroll"
      ref={place}
      style={{ maxHeight: `${(rowsInSight + 1.2) * ROW_HEIGHT}px` }}
      tabIndex={0}
      role="region"
      aria-label={caption}
      onScroll={(event) => {
        const { scrollTop } = event.currentTarget;
        // Scrolling draws again per step of rows, not per pixel.
        if (Math.abs(scrollTop - top) >= ROW_HEIGHT * 4 || scrollTop === 0) setTop(scrollTop);
      }}
    >
      <table aria-rowcount={sorted.length + 1}>
        <caption class="unseen">{caption}</caption>
        <thead>
          <tr>
            {columns.map(({ title, isFigure, value, wide }, i) => (
              <th
                key={title}
                scope="col"
                class={classOf(isFigure, wide)}
                aria-sort={sort?.column === i ? (sort.descending ? "descending" : "ascending") : undefined}
              >
                {value === undefined ? (
                  title
                ) : (
                  <button type="button" class="sort" onClick={() => press(i)}>
                    {title}
                    <span aria-hidden="true">{sort?.column === i ? (sort.descending ? " ↓" : " ↑") : ""}</span>
                  </button>
                )}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {first > 0 && <Spacer rows={first} columns={columns.length} />}
          {shown.map((row, i) => (
            <tr key={keyOf(row)} aria-rowindex={first + i + 2}>
              {columns.map(({ title, isFigure, wide, cell }) => (
                <td key={title} class={classOf(isFigure, wide)}>
                  {cell(row)}
                </td>
              ))}
            </tr>
          ))}
          {below > 0 && <Spacer rows={below} columns={columns.length} />}
          {rows.length === 0 && (
            <tr>
              <td class="empty" colSpan={columns.length}>
                {empty}
              </td>
            </tr>
          )}
        </tbody>
      </table>
    </div>
  );
}

function Spacer({ rows, columns }: { rows: number; columns: number }) {
  return (
    <tr aria-hidden="true">
      <td colSpan={columns} style={{ height: `${rows * ROW_HEIGHT}px`, padding: 0, border: 0 }} />
    </tr>
  );
}

function classOf(isFigure: boolean | undefined, wide: boolean | undefined): string {
  return `${isFigure === true ? "figure" : ""}${wide === true ? " wide" : ""}`;
}

function sortedBy<T>(
  rows: readonly T[],
  value: ((row: T) => number | string) | undefined,
  descending: boolean,
): readonly T[] {
  if (value === undefined) return rows;
  const sign = descending ? -1 : 1;
  return rows.toSorted((a, b) => sign * compare(value(a), value(b)));
}
