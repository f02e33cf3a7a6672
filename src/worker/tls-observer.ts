// Follows the TLS records of one direction, so that an end without close_notify can be told from an orderly one. It hears the
// plain twin of a socket that has become TLS: ciphertext, with which nothing else is done.
import { release, RELEASE_FROM_BYTES } from "../core/byte-queue.ts";
import { RecordWalk } from "../wire/tls-records.ts";
import type { BackendSide, ClientSide, Crashes } from "./socket-events.ts";

export class TlsObserver implements ClientSide, BackendSide {
  readonly host: Crashes;
  readonly #records = new RecordWalk();
  readonly #floats: Float64Array;
  /** The cell where the direction's bytes are counted when TLS delivers them. */
  readonly #delivered: number;
  /** The direction has ended without a close_notify. */
  truncated = false;

  constructor(host: Crashes, floats: Float64Array, delivered: number) {
    this.host = host;
    this.#floats = floats;
    this.#delivered = delivered;
  }

  /** Bytes that the plain socket had read before it became TLS, or hears since. */
  push(bytes: Uint8Array): void {
    this.#records.push(bytes, this.#floats[this.#delivered]!);
  }

  /** Whether what has come does not end with a close_notify. */
  get cut(): boolean {
    return !this.#records.closesOrderly(this.#floats[this.#delivered]!);
  }

  /** The direction's FIN has come. Whether it cuts TLS short. */
  noteEnd(): boolean {
    this.truncated = this.cut;
    return this.truncated;
  }

  clientData(chunk: Uint8Array): void {
    this.push(chunk);
    if (chunk.length >= RELEASE_FROM_BYTES) release(chunk);
  }

  backendData(_socket: unknown, chunk: Uint8Array): void {
    this.clientData(chunk);
  }

  // The TLS socket says the rest.
  clientOpened(): void {}
  clientDrained(): void {}
  clientEnded(): void {}
  clientClosed(): void {}
  clientHandshake(): void {}
  clientTlsFailed(): void {}
  backendOpened(): void {}
  backendDrained(): void {}
  backendEnded(): void {}
  backendClosed(): void {}
  backendRefused(): void {}
  backendTlsOpened(): void {}
  backendHandshake(): void {}
  backendSession(): void {}
  backendTlsFailed(): void {}
}
