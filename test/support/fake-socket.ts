// A socket that takes as many bytes as a test allows and records the calls.
import type { Socket } from "bun";

export class FakeSocket {
  /** Number of bytes that the kernel would take now. */
  room = Infinity;
  closed = false;
  readonly written: number[] = [];
  readonly calls: string[] = [];
  paused = false;

  // Code under test is typed with Bun's Socket, a class of some fifty members. Any other member that it calls throws here.
  /** In the form that the code under test sees. */
  get socket(): Socket<unknown> {
    return this as unknown as Socket<unknown>;
  }

  get text(): string {
    return Buffer.from(this.written).toString();
  }

  write(chunk: Uint8Array): number {
    if (this.closed) return -1;
    const taken = Math.min(this.room, chunk.length);
    for (const byte of chunk.subarray(0, taken)) this.written.push(byte);
    this.room -= taken;
    return taken;
  }

  pause(): void {
    this.paused = true;
    this.calls.push("pause");
  }

  resume(): void {
    this.paused = false;
    this.calls.push("resume");
  }

  shutdown(): void {
    this.calls.push("shutdown");
  }

  close(): void {
    this.closed = true;
    this.calls.push("close");
  }

  end(): void {
    this.closed = true;
    this.calls.push("end");
  }

  terminate(): void {
    this.closed = true;
    this.calls.push("terminate");
  }
}
