// Reclaims what a dead worker leaves in shared memory: releases the claims of its connections according to its ledger, counts their ends,
// and provides the data of their log lines. Nothing else writes to the rows of a dead worker.
import { lineOfRow, type AccessLine } from "../observe/access-line.ts";
import { giveBack } from "../shared/cells.ts";
import { ClientTable } from "../shared/clients.ts";
import { BACKEND, endCell, LISTENER, WORKER } from "../shared/counters.ts";
import { CLAIM, ROW, ROW_WORDS, type Ledger } from "../shared/ledger.ts";
import { SharedQueue } from "../shared/queue.ts";
import type { Logger } from "./log.ts";
import type { Registry } from "./registry.ts";

export interface DeadWorker {
  index: number;
  ledger: Ledger;
  counters: Float64Array;
  /** The end to count for its connections. */
  end: "worker_lost" | "shutdown";
}

export interface ReclaimOptions {
  registry: Registry;
  log: Logger;
  /** One Int32 cell: connections of the whole process. */
  open: Int32Array;
  /** Called for each connection that died with its worker. */
  onLost: (line: AccessLine) => void;
}

/** Reclaims all rows of the worker and empties its ledger. Returns how many connections were lost. */
export function reclaim(worker: DeadWorker, options: ReclaimOptions): number {
  const { ledger, counters } = worker;
  let lost = 0;
  for (const row of ledger.rowsInUse()) {
    releaseClaims(worker, row * ROW_WORDS, options);
    options.onLost(lostLine(worker, row, options.registry));
    ledger.words[row * ROW_WORDS] = 0;
    lost++;
  }
  ledger.words[0] = 0;
  // After the claims are released: the freed places go to connections that wait in other workers.
  for (const { queue } of options.registry.poolById.values()) {
    if (queue !== null) new SharedQueue(queue).forget(worker.index);
  }
  counters[WORKER.tickDueMs] = 0;
  return lost;
}

function releaseClaims(worker: DeadWorker, at: number, { registry, log, open }: ReclaimOptions): void {
  const { words } = worker.ledger;
  const claims = words[at]!;
  // A missing claim is a bug, but the worker is dead already, so the supervisor continues.
  const release = (giveBackClaim: () => void): void => {
    try {
      giveBackClaim();
    } catch (error) {
      log.error("claim of a lost connection is missing", { worker: worker.index, error: String(error) });
    }
  };
  if (claims & CLAIM.process) release(() => giveBack(open));
  const queue = registry.poolById.get(words[at + ROW.pool]!)?.queue ?? null;
  if (claims & CLAIM.queue && queue !== null) release(() => new SharedQueue(queue).leave());
  const listener = registry.listenerById.get(words[at + ROW.listener]!);
  if (listener !== undefined) {
    const { clients, cells } = listener;
    if (claims & CLAIM.listener) release(() => giveBack(cells.open));
    if (claims & CLAIM.client && clients !== null) {
      release(() => new ClientTable(clients).release(words[at + ROW.clientEntry]!));
    }
    cells.counters[worker.index * LISTENER.size + endCell(worker.end, "lb")]!++;
  }
  const backend = registry.backendById.get(words[at + ROW.backend]!);
  if (backend !== undefined) {
    if (claims & CLAIM.backend) release(() => giveBack(backend.cells.open));
    backend.cells.counters[worker.index * BACKEND.size + BACKEND.ended]!++;
  }
  worker.counters[WORKER.ended]!++;
}

function lostLine({ index, ledger, end }: DeadWorker, row: number, registry: Registry): AccessLine {
  const { words } = ledger;
  const at = row * ROW_WORDS;
  return lineOfRow(ledger, row, {
    listener: registry.listenerById.get(words[at + ROW.listener]!)?.name ?? "",
    sni: ledger.sni(row),
    tls: "",
    clientCert: "",
    pool: registry.poolById.get(words[at + ROW.pool]!)?.name ?? "",
    backend: registry.backendById.get(words[at + ROW.backend]!)?.name ?? "",
    connectMs: -1,
    worker: index,
    end,
    endBy: "lb",
    error: "",
  });
}
