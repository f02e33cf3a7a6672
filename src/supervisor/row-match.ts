// Selects rows of the workers' ledgers. Workers write to them at any time, so each result describes a moment that has passed.
import { cidrHasAt, type CidrTable } from "../core/cidr-set.ts";
import { ROW, ROW_WORDS, type Ledger } from "../shared/ledger.ts";

/** Conditions, all of which must hold; null = no condition. Sets hold ids of the registry. */
export interface RowMatch {
  readonly listeners: ReadonlySet<number> | null;
  readonly pools: ReadonlySet<number> | null;
  readonly backends: ReadonlySet<number> | null;
  readonly clients: CidrTable | null;
}

export const EVERY_ROW: RowMatch = { listeners: null, pools: null, backends: null, clients: null };

/** Calls `take` with each matching row and the id of its connection. After `take` has read the row, it must check `isStill`. */
export function eachMatch(ledger: Ledger, match: RowMatch, take: (row: number, id: number) => void): void {
  for (const row of ledger.rowsInUse()) {
    const stamp = ledger.stamp(row);
    if (stamp === 0) continue;
    if (matches(ledger.words, row * ROW_WORDS, match) && ledger.isStill(row, stamp)) take(row, Math.abs(stamp));
  }
}

function matches(words: Int32Array, at: number, { listeners, pools, backends, clients }: RowMatch): boolean {
  return (
    (listeners === null || listeners.has(words[at + ROW.listener]!)) &&
    (pools === null || pools.has(words[at + ROW.pool]!)) &&
    (backends === null || backends.has(words[at + ROW.backend]!)) &&
    (clients === null || cidrHasAt(clients, words, at + ROW.address))
  );
}
