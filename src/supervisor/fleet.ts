// All the workers: as many slots as the config wants, with the active plan in each. Surplus ones retire.
import type { Follower, PoolState } from "../messages.ts";
import { hasDescriptors } from "../platform/sockets.ts";
import { PER_WORKER, THREAD_START } from "./budget.ts";
import { readdressedState } from "./plans.ts";
import { NO_DESCRIPTORS, WorkerSlot, type Answer, type SlotOptions } from "./worker-slot.ts";

const CATCH_UP_MS = 2000;
const CATCH_UP_POLL_MS = 1;

export class Fleet {
  readonly #options: SlotOptions;
  slots: WorkerSlot[] = [];
  /** Slots that no longer accept but still have connections. */
  retiring: WorkerSlot[] = [];

  constructor(options: SlotOptions) {
    this.#options = options;
  }

  /** Starts workers until there are `count`. Returns the error of the first that cannot serve, or null. */
  async growTo(count: number): Promise<string | null> {
    const missing = count - this.slots.length;
    if (missing > 0) {
      const each = THREAD_START + PER_WORKER + this.#options.planFor(this.slots.length).sockets.length;
      if (!hasDescriptors(missing * each)) {
        return `${missing} more workers need ${missing * each} descriptors: ${NO_DESCRIPTORS}`;
      }
    }
    const fresh: WorkerSlot[] = [];
    while (this.slots.length < count) {
      const slot = new WorkerSlot(this.#freeIndex(), this.slots.length, this.#options);
      this.slots.push(slot);
      fresh.push(slot);
    }
    for (const { index } of fresh) this.#options.registry.makeRoom(index + 1);
    const answers = await Promise.all(fresh.map((slot) => slot.start()));
    return firstRefusal(answers);
  }

  /** Sends every worker the active plan. Returns the reason of the first that refuses it, or null. */
  async applyAll(): Promise<string | null> {
    const answers = await Promise.all(this.slots.map((slot) => slot.apply(this.#options.planFor(slot.position))));
    return firstRefusal(answers);
  }

  /** Retires the workers from position `count` on. The others must serve their sockets already. */
  shrinkTo(count: number): void {
    for (const slot of this.slots.splice(count)) {
      this.retiring.push(slot);
      void slot.stop(Infinity, Infinity).then(() => {
        this.retiring = this.retiring.filter((other) => other !== slot);
      });
    }
  }

  /** Sends all workers the whole new state of one pool. */
  sendPoolState(state: PoolState): void {
    for (const slot of [...this.slots, ...this.retiring]) slot.sendPoolState(state);
  }

  /**
   * Tells workers that retire which backends the active config has. They get no plan, but their connections may wait, or try another
   * backend.
   */
  sendBackends(): void {
    if (this.retiring.length === 0) return;
    for (const pool of this.#options.registry.pools) {
      const state = readdressedState(pool, []);
      for (const slot of this.retiring) slot.sendPoolState(state);
    }
  }

  /** Tells all workers who follows the access log. */
  sendFollowers(followers: Follower[]): void {
    for (const slot of [...this.slots, ...this.retiring]) slot.sendFollowers(followers);
  }

  /** Tells all workers that the config changes are complete. */
  sendSettled(): void {
    for (const slot of this.slots) slot.sendSettled();
  }

  /** Sends workers with an outdated plan or pool state the plan again. Call it every second or so. */
  resendOutdated(generation: number): void {
    const { poolVersions } = this.#options.registry;
    for (const slot of this.slots) slot.resendIfOutdated(generation, poolVersions);
  }

  /**
   * Resolves when every worker has the state of all pools that was sent before the call, so that an operator who has drained a backend can
   * stop it. A worker that hangs delays the answer by CATCH_UP_MS at most.
   */
  async catchUp(): Promise<void> {
    const { poolVersions } = this.#options.registry;
    const deadlineMs = performance.now() + CATCH_UP_MS;
    while (this.slots.some((slot) => slot.isBehind(poolVersions)) && performance.now() < deadlineMs)
      await new Promise((resolve) => setTimeout(resolve, CATCH_UP_POLL_MS));
  }

  /** Stops all workers; resolves when the last is gone. */
  async stopAll(spreadFromMs: number, deadlineMs: number): Promise<void> {
    await Promise.all([...this.slots, ...this.retiring].map((slot) => slot.stop(spreadFromMs, deadlineMs)));
  }

  // A retired worker that still has connections keeps its index: two writers of one row would lose counts.
  #freeIndex(): number {
    const taken = new Set([...this.slots, ...this.retiring].map((slot) => slot.index));
    let index = 0;
    while (taken.has(index)) index++;
    return index;
  }
}

function firstRefusal(answers: readonly Answer[]): string | null {
  for (const answer of answers) if (!answer.ok) return answer.reason;
  return null;
}
