// Follows the TLS records of one direction, so that an end without close_notify can be distinguished from an orderly one. It is the data
// of the plain twin of a TLS socket, which receives the ciphertext.
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

  /** Bytes that the plain socket had read before it became TLS, or that its twin receives. */
  push(bytes: Uint8Array): void {
    this.#records.push(bytes, this.#floats[this.#delivered]!);
  }

  /** Whether the data so far does not end with a close_notify. */
  get cut(): boolean {
    return !this.#records.closesOrderly(this.#floats[this.#delivered]!);
  }

  /** The direction's FIN has arrived. Returns whether it truncates TLS. */
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

  // The TLS socket reports the rest.
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
