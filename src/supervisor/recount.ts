// Releases places that nobody holds. A worker that dies in the middle of an event may have claimed a place that its ledger does not name yet,
// or may have removed one from its ledger that it has not released. So after such a death the rows of all ledgers are counted: what a cell
// counts beyond them, in many samples, is lost.
import { claimed, giveBack } from "../shared/cells.ts";
import { ClientTable } from "../shared/clients.ts";
import { CLAIM, ROW, ROW_WORDS, type Ledger } from "../shared/ledger.ts";
import { SharedQueue } from "../shared/queue.ts";
import type { Logger } from "./log.ts";
import type { EndingWorker } from "./ordered-ends.ts";
import type { Registry } from "./registry.ts";

// A release of a place that somebody holds would break a cap for ever. Other workers continue during the samples, so three things could make
// a held place look lost in a sample; none of them is in all samples.
//
// - A worker is between a claim and its note, or between the removal of a note and the release, or makes the entry of a client. That takes
//   about a microsecond, but the thread may be without a CPU for seconds in between. So every worker must answer after each sample: it does
//   that in an event of its own, when the event of the claim is over. No claim is without its note in two samples.
// - A place moves, from a row that the sample has not reached to one that it has passed, and the number of places does not change. Places may
//   move in one direction for long: from a worker that retires to the others, or down the rows. So every second sample goes through workers
//   and rows backward: it meets the old row first and does not miss such a place, but may count it twice.
// - The cell is freed and given to another record. While a place is lost the cell is not zero, and so it is not freed.
const SAMPLES = 20;
const SAMPLE_EVERY_MS = 50;
/** Minimum number of samples in each direction in which a cell must not have changed. */
const SAMPLES_MIN = 5;
/** Pause before the next attempt if a worker does not answer. */
const RETRY_MS = 5000;

export interface RecountOptions {
  registry: Registry;
  /** All that run. */
  workers: () => readonly EndingWorker[];
  /** One Int32 cell: connections of the whole process. */
  open: Int32Array;
  log: Pick<Logger, "warn">;
}

/** Something with places, by the id of its record, PROCESS for the process, or clientKey for the entry of a client. */
interface Counted {
  readonly what: { [field: string]: string };
  held(): number;
  release(): void;
  /** The least number of places that no row named, over the samples. */
  least: number;
  /** Samples in which the number of places did not change, by direction. */
  forward: number;
  backward: number;
}

const PROCESS = 0;
const NOT_SAMPLED = { least: Infinity, forward: 0, backward: 0 };

export class Recount {
  readonly #options: RecountOptions;
  #isRunning = false;
  #isDue = false;

  constructor(options: RecountOptions) {
    this.#options = options;
  }

  /** Call it when what a dead worker held has been released by its ledger. */
  begin(): void {
    this.#isDue = true;
    if (!this.#isRunning) void this.#run();
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    while (this.#isDue) {
      this.#isDue = false;
      const counted = this.#counted();
      if (!(await this.#sample(counted))) {
        this.#isDue = true;
        await pause(RETRY_MS);
        continue;
      }
      // Another worker has died meanwhile: the samples may include what it held.
      if (!this.#isDue) this.#release(counted);
    }
    this.#isRunning = false;
  }

  async #allAnswer(): Promise<boolean> {
    const none = [new Uint32Array(0), new Float64Array(0)] as const;
    const counts = await Promise.all(this.#options.workers().map((worker) => worker.endConnections("killed", ...none)));
    return !counts.includes(null);
  }

  #counted(): Map<number, Counted> {
    const { registry, open } = this.#options;
    const all = new Map<number, Counted>([[PROCESS, ofCell({ of: "process" }, open)]]);
    for (const { id, name, cells } of registry.listenerById.values())
      all.set(id, ofCell({ of: "listener", listener: name }, cells.open));
    for (const { id, name, cells } of registry.backendById.values())
      all.set(id, ofCell({ of: "backend", backend: name }, cells.open));
    for (const { id, name, queue } of registry.poolById.values()) {
      if (queue !== null) all.set(id, ofQueue({ of: "queue", pool: name }, new SharedQueue(queue)));
    }
    this.#addClients(all);
    return all;
  }

  // A table may have millions of entries, so only those are sampled that have more places than the rows name, or that change meanwhile.
  #addClients(counted: Map<number, Counted>): void {
    const tables = Array.from(this.#options.registry.listenerById.values()).flatMap(({ id, name, clients }) => {
      if (clients === null) return [];
      const table = new ClientTable(clients);
      return [{ id, name, table, open: table.openByEntry() }];
    });
    const noted = this.#noted(null, "forward");
    for (const { id, name, table, open } of tables) {
      for (const [entry, places] of open) {
        const key = clientKey(id, entry);
        if (places <= (noted.get(key) ?? 0) && places === table.open(entry)) continue;
        counted.set(key, ofClient({ of: "client", listener: name }, table, entry));
      }
    }
  }

  /** False = a worker does not answer. */
  async #sample(counted: ReadonlyMap<number, Counted>): Promise<boolean> {
    for (let i = 0; i < SAMPLES; i++) {
      const direction = i % 2 === 0 ? "forward" : "backward";
      const before = new Map(Array.from(counted, ([id, one]) => [id, one.held()]));
      const noted = this.#noted(counted, direction);
      for (const [id, one] of counted) {
        const held = one.held();
        if (held !== before.get(id)) continue;
        one.least = Math.min(one.least, held - (noted.get(id) ?? 0));
        one[direction]++;
      }
      await pause(SAMPLE_EVERY_MS);
      if (!(await this.#allAnswer())) return false;
    }
    return true;
  }

  /** The places that the rows of all ledgers name: all, or those of `counted`. */
  #noted(counted: ReadonlyMap<number, Counted> | null, direction: "forward" | "backward"): Map<number, number> {
    const noted = new Map<number, number>();
    const add = (id: number): void => {
      if (counted === null || counted.has(id)) noted.set(id, (noted.get(id) ?? 0) + 1);
    };
    const workers = this.#options.workers();
    for (const worker of direction === "forward" ? workers : workers.toReversed()) {
      const { ledger } = worker;
      for (const row of ledger.rowsInUse(direction)) addRow(ledger, row, add);
    }
    return noted;
  }

  #release(counted: ReadonlyMap<number, Counted>): void {
    for (const { what, least, forward, backward, release } of counted.values()) {
      if (Math.min(forward, backward) < SAMPLES_MIN || least <= 0) continue;
      this.#options.log.warn("places that a dead worker left claimed are released", { ...what, places: least });
      for (let i = 0; i < least; i++) release();
    }
    for (const { queue } of this.#options.registry.poolById.values())
      if (queue !== null) new SharedQueue(queue).wakeOldest();
  }
}

function addRow({ words }: Ledger, row: number, add: (id: number) => void): void {
  const at = row * ROW_WORDS;
  const claims = words[at]!;
  if (claims & CLAIM.process) add(PROCESS);
  if (claims & CLAIM.listener) add(words[at + ROW.listener]!);
  if (claims & CLAIM.backend) add(words[at + ROW.backend]!);
  if (claims & CLAIM.queue) add(words[at + ROW.pool]!);
  if (claims & CLAIM.client) add(clientKey(words[at + ROW.listener]!, words[at + ROW.clientEntry]!));
}

/** Differs from all ids: they, and the numbers of entries, are below 2^32. */
function clientKey(listenerId: number, entry: number): number {
  return listenerId * 2 ** 32 + entry;
}

function ofCell(what: Counted["what"], cell: Int32Array): Counted {
  return { what, held: () => claimed(cell), release: () => giveBack(cell), ...NOT_SAMPLED };
}

function ofQueue(what: Counted["what"], queue: SharedQueue): Counted {
  return { what, held: () => queue.waiting, release: () => queue.leave(), ...NOT_SAMPLED };
}

function ofClient(what: Counted["what"], table: ClientTable, entry: number): Counted {
  return { what, held: () => table.open(entry), release: () => table.releaseLost(entry), ...NOT_SAMPLED };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => void setTimeout(resolve, ms).unref());
}
