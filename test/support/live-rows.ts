// Connections in the ledger of a worker, in the form in which the worker writes them, for readers in other threads.
import { parseAddress } from "../../src/core/address.ts";
import type { OrderedEnd } from "../../src/messages.ts";
import { monotonicMs } from "../../src/platform/clock.ts";
import {
  Ledger,
  ledgerMemory,
  PHASES,
  PROXIED,
  ROW,
  ROW_FLOAT,
  ROW_FLOATS,
  ROW_WORDS,
  type PhaseName,
} from "../../src/shared/ledger.ts";

let lastId = 0;

export interface LiveRow {
  listener?: number;
  pool?: number;
  backend?: number;
  client?: string;
  port?: number;
  /** The peer, if the client comes from a PROXY header. */
  peer?: string;
  sni?: string;
  phase?: PhaseName;
  ageMs?: number;
  bytesIn?: number;
  bytesOut?: number;
}

export class WorkerOfRows {
  readonly index: number;
  readonly ledger: Ledger;
  /** The requested ends. */
  readonly asked: { end: OrderedEnd; ids: number[] }[] = [];

  constructor(index = 0, rows = 64) {
    this.index = index;
    this.ledger = new Ledger(ledgerMemory(rows));
  }

  open(given: LiveRow = {}): { row: number; id: number } {
    const { ledger } = this;
    const { words, floats } = ledger;
    const row = ledger.take();
    const at = row * ROW_WORDS;
    words[at + ROW.listener] = given.listener ?? 0;
    words[at + ROW.pool] = given.pool ?? -1;
    words[at + ROW.backend] = given.backend ?? 0;
    words[at + ROW.phase] = PHASES.indexOf(given.phase ?? "relaying");
    words.set(parseAddress(given.client ?? "127.0.0.1")!, at + ROW.address);
    words[at + ROW.port] = given.port ?? 4000;
    if (given.peer !== undefined) {
      words.set(parseAddress(given.peer)!, at + ROW.peer);
      words[at + ROW.peer + 4] = 5000;
      words[at + ROW.proxied] = PROXIED.yes;
    }
    if (given.sni !== undefined) ledger.noteSni(row, given.sni);
    const floatsAt = row * ROW_FLOATS;
    floats[floatsAt + ROW_FLOAT.startedMs] = monotonicMs() - (given.ageMs ?? 0);
    floats[floatsAt + ROW_FLOAT.bytesIn] = given.bytesIn ?? 0;
    floats[floatsAt + ROW_FLOAT.bytesOut] = given.bytesOut ?? 0;
    floats[floatsAt + ROW_FLOAT.id] = ++lastId;
    return { row, id: lastId };
  }

  count(row: number, bytesIn: number, bytesOut: number): void {
    const { floats } = this.ledger;
    floats[row * ROW_FLOATS + ROW_FLOAT.bytesIn]! += bytesIn;
    floats[row * ROW_FLOATS + ROW_FLOAT.bytesOut]! += bytesOut;
  }

  endConnections(end: OrderedEnd, rows: Uint32Array, ids: Float64Array): Promise<number> {
    this.asked.push({ end, ids: [...ids] });
    let count = 0;
    for (const [i, row] of rows.entries()) {
      if (Math.abs(this.ledger.stamp(row)) !== ids[i]) continue;
      this.ledger.release(row);
      count++;
    }
    return Promise.resolve(count);
  }
}
