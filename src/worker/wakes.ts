// Flows that wait for a time and not for an event of a socket: for bandwidth, for the next turn of the loop, or for bytes of a
// paused sender. Nothing runs while no flow waits.
import type { Flow } from "./flow.ts";

/** Whose flows wait. */
export interface Sleeper {
  readonly toBackend: Flow;
  readonly toClient: Flow;
  /** The time of this flow has come. */
  wake(flow: Flow): void;
}

export class Wakes {
  /** Those with a flow that waits. */
  readonly #waiting = new Set<Sleeper>();
  #nextMs = Infinity;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #turn: ReturnType<typeof setImmediate> | null = null;

  /** Wakes the flow in `inMs`, to the millisecond; with 0 in the next turn of the loop. */
  at(sleeper: Sleeper, flow: Flow, inMs: number): void {
    const atMs = performance.now() + inMs;
    flow.ensurePump().wakeAtMs = atMs;
    this.#waiting.add(sleeper);
    if (atMs < this.#nextMs) this.#set(atMs, inMs);
  }

  forget(sleeper: Sleeper): void {
    this.#waiting.delete(sleeper);
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
    const due: Sleeper[] = [];
    for (const sleeper of this.#waiting)
      if (Math.min(sleeper.toBackend.wakeAtMs, sleeper.toClient.wakeAtMs) <= now) due.push(sleeper);
    for (const sleeper of due) {
      this.#wake(sleeper, sleeper.toBackend, now);
      this.#wake(sleeper, sleeper.toClient, now);
    }
    let next = Infinity;
    for (const sleeper of this.#waiting) {
      const at = Math.min(sleeper.toBackend.wakeAtMs, sleeper.toClient.wakeAtMs);
      if (at === Infinity) this.#waiting.delete(sleeper);
      else if (at < next) next = at;
    }
    if (next < Infinity) this.#set(next, next - performance.now());
  }

  #wake(sleeper: Sleeper, flow: Flow, now: number): void {
    if (flow.pump === null || flow.pump.wakeAtMs > now) return;
    flow.pump.wakeAtMs = Infinity;
    sleeper.wake(flow);
  }
}
