// Keeps the last ten minutes of process-wide counts, one point per second, so that a dashboard shows them as soon as it opens.
import { UNSERVED } from "../core/ends.ts";
import { HISTORY_SECONDS } from "../observe/figures.ts";
import type { Point } from "../observe/history.ts";
import { endCell, LISTENER } from "../shared/counters.ts";
import type { ListenerRecord } from "./registry.ts";

/** Counters over all listeners. */
interface Totals {
  accepted: number;
  refused: number;
  bytesIn: number;
  bytesOut: number;
}

export class History {
  readonly #points: Point[] = [];
  #before: { nowMs: number; totals: Totals } | null = null;

  get points(): readonly Point[] {
    return this.#points;
  }

  /** Call it once a second. `nowMs` is Date.now(). */
  add(nowMs: number, open: number, listeners: readonly Pick<ListenerRecord, "cells">[]): void {
    const before = this.#before;
    const totals = totalsOf(listeners);
    this.#before = { nowMs, totals };
    if (before === null) return;
    const seconds = (nowMs - before.nowMs) / 1000;
    // The clock was set backwards.
    if (seconds <= 0) return;
    // Totals fall when a reload removes a listener.
    const rate = (figure: keyof Totals): number =>
      Math.round(Math.max(0, totals[figure] - before.totals[figure]) / seconds);
    this.#points.push({
      at: Math.round(nowMs / 1000),
      open,
      accepted: rate("accepted"),
      refused: rate("refused"),
      bytes_in: rate("bytesIn"),
      bytes_out: rate("bytesOut"),
    });
    if (this.#points.length > HISTORY_SECONDS) this.#points.shift();
  }
}

function totalsOf(listeners: readonly Pick<ListenerRecord, "cells">[]): Totals {
  const totals: Totals = { accepted: 0, refused: 0, bytesIn: 0, bytesOut: 0 };
  for (const { cells } of listeners) {
    const sums = cells.totals();
    totals.accepted += sums[LISTENER.accepted]!;
    totals.bytesIn += sums[LISTENER.bytesIn]!;
    totals.bytesOut += sums[LISTENER.bytesOut]!;
    for (const end of UNSERVED) totals.refused += sums[endCell(end, "lb")]!;
  }
  return totals;
}
