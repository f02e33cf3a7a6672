// Wakes flows that wait for a time and not for a socket event: for bandwidth, for the next turn of the loop, or for bytes of a paused
// sender. Nothing runs while no flow waits.
import type { Flow } from "./flow.ts";

/** The owner of the waiting flows. */
export interface Sleeper {
  readonly toBackend: Flow;
  readonly toClient: Flow;
  /** The time of this flow has come. */
  wake(flow: Flow): void;
}

interface Wake {
  atMs: number;
  sleeper: Sleeper;
  flow: Flow;
}

export class Wakes {
  /** A binary heap: the earliest is first. Only the last time set for a flow counts, so an entry may be outdated. */
  readonly #heap: Wake[] = [];
  #nextMs = Infinity;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #turn: ReturnType<typeof setImmediate> | null = null;

  /** Wakes the flow in `inMs`, to the millisecond; with 0 in the next turn of the loop. Only the last call for a flow counts. */
  at(sleeper: Sleeper, flow: Flow, inMs: number): void {
    const atMs = performance.now() + inMs;
    const pump = flow.ensurePump();
    pump.wakeAtMs = atMs;
    // The flow's earlier entry adds a new one when it is due.
    if (atMs >= pump.queuedMs) return;
    this.#push({ atMs, sleeper, flow });
    if (atMs < this.#nextMs) this.#set(atMs, inMs);
  }

  forget({ toBackend, toClient }: Sleeper): void {
    if (toBackend.pump !== null) toBackend.pump.wakeAtMs = Infinity;
    if (toClient.pump !== null) toClient.pump.wakeAtMs = Infinity;
  }

  // A timer's resolution is a millisecond. Turning the loop for less would keep it busy while many flows wait.
  #set(atMs: number, inMs: number): void {
    this.#nextMs = atMs;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    if (inMs > 0) this.#timer = setTimeout(() => this.#run(), inMs);
    else if (this.#turn === null) this.#turn = setImmediate(() => this.#run());
  }

  #run(): void {
    const now = performance.now();
    this.#turn = null;
    this.#nextMs = Infinity;
    // Flows that are added during this run are handled below or in the next run.
    const due: Wake[] = [];
    while (this.#heap.length > 0 && this.#heap[0]!.atMs <= now) due.push(this.#pop());
    for (const { atMs, sleeper, flow } of due) {
      const { pump } = flow;
      if (pump === null || pump.queuedMs !== atMs) continue;
      pump.queuedMs = Infinity;
      if (pump.wakeAtMs <= now) {
        pump.wakeAtMs = Infinity;
        sleeper.wake(flow);
      } else if (pump.wakeAtMs < Infinity) this.#push({ atMs: pump.wakeAtMs, sleeper, flow });
    }
    const next = this.#heap[0]?.atMs ?? Infinity;
    if (next < Infinity) this.#set(next, next - performance.now());
  }

  #push(wake: Wake): void {
    wake.flow.ensurePump().queuedMs = wake.atMs;
    const heap = this.#heap;
    let at = heap.length;
    while (at > 0) {
      const above = (at - 1) >> 1;
      if (heap[above]!.atMs <= wake.atMs) break;
      heap[at] = heap[above]!;
      at = above;
    }
    heap[at] = wake;
  }

  #pop(): Wake {
    const heap = this.#heap;
    const first = heap[0]!;
    const last = heap.pop()!;
    if (heap.length === 0) return first;
    let at = 0;
    for (let below = 1; below < heap.length; below = 2 * at + 1) {
      if (below + 1 < heap.length && heap[below + 1]!.atMs < heap[below]!.atMs) below++;
      if (heap[below]!.atMs >= last.atMs) break;
      heap[at] = heap[below]!;
      at = below;
    }
    heap[at] = last;
    return first;
  }
}
