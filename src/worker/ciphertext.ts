// What the plain twin of a socket that has become TLS hears: ciphertext. Nothing is done with it but to follow its records, so
// that an end without close_notify can be told.
import { release, RELEASE_FROM_BYTES } from "../core/byte-queue.ts";
import { ROW_FLOATS } from "../shared/ledger.ts";
import { RecordWalk } from "../wire/tls-records.ts";
import type { Connection } from "./connection.ts";
import type { DataPlane } from "./plane.ts";

export class Ciphertext {
  /** For the table of handlers, which asks the socket's data for it when one of them throws. */
  readonly plane: DataPlane;
  readonly #records = new RecordWalk();
  /** Where the ledger counts the data that has come out. */
  readonly #delivered: number;

  /** `cell`, of ROW_FLOAT, counts the direction's bytes. */
  constructor(plane: DataPlane, row: number, cell: number) {
    this.plane = plane;
    this.#delivered = row * ROW_FLOATS + cell;
  }

  /** Bytes that the plain socket had read before it became TLS, or heard since. */
  push(bytes: Uint8Array): void {
    this.#records.push(bytes, this.plane.floats[this.#delivered]!);
  }

  /** Whether what has come does not end with a close_notify. */
  get cut(): boolean {
    return !this.#records.closesOrderly(this.plane.floats[this.#delivered]!);
  }

  /** As the data of the twin, which has the handlers of the socket that it was. */
  get asTwin(): Connection {
    return this as unknown as Connection;
  }

  clientData(chunk: Uint8Array): void {
    this.#hear(chunk);
  }

  backendData(_socket: unknown, chunk: Uint8Array): void {
    this.#hear(chunk);
  }

  #hear(chunk: Uint8Array): void {
    this.push(chunk);
    if (chunk.length >= RELEASE_FROM_BYTES) release(chunk);
  }

  // The TLS socket says the rest.
  clientDrained(): void {}
  clientEnded(): void {}
  clientClosed(): void {}
  backendDrained(): void {}
  backendEnded(): void {}
  backendClosed(): void {}
}
