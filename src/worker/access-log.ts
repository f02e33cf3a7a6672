// The access log as a worker sees it: one line a connection, formatted here and sent to the supervisor in batches. What
// is on its way is bounded: when the supervisor cannot keep up, lines are lost and counted, and no client waits.
import type { End, EndedBy } from "../core/ends.ts";
import { formatAccess, lineOfRow, printableName } from "../observe/access-line.ts";
import { add, claimed } from "../shared/cells.ts";
import { WORKER } from "../shared/counters.ts";
import { ROW_FLOAT, ROW_FLOATS } from "../shared/ledger.ts";
import type { Connection } from "./connection.ts";
import type { DataPlane } from "./plane.ts";

/** Characters that go to the supervisor in one message, at most about. */
const BATCH_CHARACTERS = 64 * 1024;
/** Characters that may be on their way to the disk, for each worker; more are lost. */
export const LOG_PENDING_MAX = 4 * 1024 * 1024;

export class AccessLog {
  readonly #plane: DataPlane;
  /** One Int32 cell: characters sent that the supervisor has not written yet. */
  readonly #pending: Int32Array;
  readonly #send: (text: string, lines: number) => void;
  format: "text" | "json" | "off" = "off";
  /** Connections without a byte are logged too. */
  debug = false;
  #batch = "";
  #lines = 0;

  constructor(plane: DataPlane, pending: Int32Array, send: (text: string, lines: number) => void) {
    this.#plane = plane;
    this.#pending = pending;
    this.#send = send;
  }

  get empty(): boolean {
    return this.#lines === 0;
  }

  /** The line of a connection that has ended; its row of the ledger must still be there. */
  write(connection: Connection, end: End, endBy: EndedBy, connectMs: number, error: string): void {
    if (this.format === "off") return;
    const plane = this.#plane;
    const floatsAt = connection.row * ROW_FLOATS;
    const { floats } = plane;
    const bytesIn = floats[floatsAt + ROW_FLOAT.bytesIn]!;
    const bytesOut = floats[floatsAt + ROW_FLOAT.bytesOut]!;
    // The probes of a balancer in front of us connect and say nothing: they would fill the log.
    if (bytesIn + bytesOut === 0 && !this.debug && (end === "eof" || (end === "reset" && endBy === "client"))) return;
    const line = lineOfRow(plane, connection.row, {
      listener: connection.listener.plan.name,
      sni: connection.sni,
      tls: connection.tlsVersion,
      clientCert: connection.clientCertificate === null ? "" : printableName(connection.clientCertificate.name),
      pool: connection.pool?.plan.name ?? "",
      backend: connection.backend?.name ?? "",
      connectMs,
      worker: plane.index,
      end,
      endBy,
      error,
    });
    const text = formatAccess(this.format, line);
    this.#batch += `${text}\n`;
    this.#lines++;
    if (this.#batch.length >= BATCH_CHARACTERS) this.flush();
  }

  /** Sends what has gathered. */
  flush(): void {
    if (this.#lines === 0) return;
    if (claimed(this.#pending) > LOG_PENDING_MAX) {
      this.#plane.counters[WORKER.logLinesLost]! += this.#lines;
    } else {
      add(this.#pending, this.#batch.length);
      this.#send(this.#batch, this.#lines);
    }
    this.#batch = "";
    this.#lines = 0;
  }
}
