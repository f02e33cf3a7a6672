// The bandwidth limits of a listener: the limits of one of its connections, for each direction.
import type { BandwidthPlan } from "../messages.ts";
import { BandwidthRate, OwnBandwidth, type Bandwidth } from "../policy/bandwidth.ts";
import { SharedBandwidth, type Direction } from "../shared/bandwidth.ts";
import { TimeCells } from "../shared/time-cells.ts";

export class ListenerBandwidth {
  /** Bytes are counted but not delayed. */
  readonly isDryRun: boolean;
  readonly #per: BandwidthPlan["per"];
  readonly #rates: Record<Direction, BandwidthRate | null>;
  readonly #times: TimeCells | null;

  constructor({ upload, download, per, memory }: BandwidthPlan, isDryRun: boolean) {
    this.isDryRun = isDryRun;
    this.#per = per;
    this.#rates = { upload: rateOf(upload), download: rateOf(download) };
    this.#times = memory === null ? null : new TimeCells(memory);
  }

  /** The limits of a connection whose client has this entry in the table of clients (negative = none); null = unlimited. */
  limit(direction: Direction, clientEntry: number, nowMs: number): Bandwidth | null {
    const rate = this.#rates[direction];
    if (rate === null) return null;
    if (this.#times === null) return new OwnBandwidth(rate, nowMs);
    const entry = this.#per === "client" ? clientEntry : 0;
    return entry < 0 ? null : new SharedBandwidth(this.#times, entry, direction, rate);
  }
}

function rateOf(bytesPerSecond: number): BandwidthRate | null {
  return bytesPerSecond > 0 ? new BandwidthRate(bytesPerSecond) : null;
}
