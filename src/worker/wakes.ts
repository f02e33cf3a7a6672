// Flows that wait for a time and not for an event of a socket: for bandwidth, for the next turn of the loop, or for bytes of a
// paused sender. Nothing runs while no flow waits.
import type { Connection } from "./connection.ts";
import type { Flow } from "./flow.ts";
import { pump } from "./pump.ts";

export class Wakes {
  /** Those with a flow that waits. */
  readonly #waiting = new Set<Connection>();
  #nextMs = Infinity;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #turn: ReturnType<typeof setImmediate> | null = null;

  /** Pumps the flow in `inMs`, to the millisecond; with 0 in the next turn of the loop. */
  at(connection: Connection, flow: Flow, inMs: number): void {
    flow.wakeAtMs = performance.now() + inMs;
    this.#waiting.add(connection);
    if (flow.wakeAtMs < this.#nextMs) this.#set(flow.wakeAtMs, inMs);
  }

  forget(connection: Connection): void {
    this.#waiting.delete(connection);
  }

  #set(atMs: number, inMs: number): void {
    this.#nextMs = atMs;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    if (inMs >= 0.5) this.#timer = setTimeout(() => this.#run(), inMs);
    else if (this.#turn === null) this.#turn = setImmediate(() => this.#run());
  }

  #run(): void {
    const now = performance.now();
    this.#turn = null;
    this.#nextMs = Infinity;
    // What is set during this run is looked at below or in the next one.
    const due: Connection[] = [];
    for (const connection of this.#waiting)
      if (Math.min(connection.up.wakeAtMs, connection.down.wakeAtMs) <= now) due.push(connection);
    for (const connection of due) {
      this.#wake(connection, connection.up, now);
      this.#wake(connection, connection.down, now);
    }
    let next = Infinity;
    for (const connection of this.#waiting) {
      const at = Math.min(connection.up.wakeAtMs, connection.down.wakeAtMs);
      if (at === Infinity) this.#waiting.delete(connection);
      else if (at < next) next = at;
    }
    if (next < Infinity) this.#set(next, next - performance.now());
  }

  #wake(connection: Connection, flow: Flow, now: number): void {
    if (flow.wakeAtMs > now) return;
    flow.wakeAtMs = Infinity;
    pump(connection, flow);
  }
}
