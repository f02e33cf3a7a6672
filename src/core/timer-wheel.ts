// A timer wheel for all timeouts of one thread: setting, moving and cancelling a timeout costs no allocation and no search. The wheel
// has no clock of its own; its owner calls `advance` once per tick.

/**
 * The fields that an object needs to be put on a wheel; only the wheel writes them. A node that is not on a wheel has nulls and a
 * `timerSlot` of -1.
 */
export interface TimerNode {
  timerNext: TimerNode | null;
  timerPrev: TimerNode | null;
  timerSlot: number;
  /** When it is due, in whole milliseconds of the wheel's clock. */
  timerAt: number;
  onTimer(nowMs: number): void;
}

/** `timerSlot` of a node that is not on a wheel. */
export const NO_SLOT = -1;

export class TimerWheel {
  /** The time of the last `advance` or `setTime`, in milliseconds. */
  now: number;
  /** Number of nodes on the wheel. */
  size = 0;

  readonly #tickMs: number;
  readonly #slots: number;
  // One list per slot, and after them the list of nodes that are due and wait for their call.
  readonly #heads: (TimerNode | null)[];
  readonly #tails: (TimerNode | null)[];
  /** The last tick whose slot was processed. */
  #tick: number;

  /** `tickMs` and `slots` are integers from 1; one turn is their product. Any clock that does not go back can be used. */
  constructor(tickMs: number, slots: number, nowMs = 0) {
    this.now = nowMs;
    this.#tickMs = tickMs;
    this.#slots = slots;
    this.#heads = Array<TimerNode | null>(slots + 1).fill(null);
    this.#tails = Array<TimerNode | null>(slots + 1).fill(null);
    this.#tick = Math.floor(nowMs / tickMs);
  }

  /** Puts a node on the wheel, or moves it. A time in the past is due at the next tick. */
  schedule(node: TimerNode, atMs: number): void {
    if (node.timerSlot === NO_SLOT) this.size++;
    else this.#unlink(node);
    // Integer milliseconds, so that rounding cannot separate the tick from the time.
    node.timerAt = Math.ceil(atMs);
    const tick = Math.max(Math.ceil(node.timerAt / this.#tickMs), this.#tick + 1);
    this.#append(node, tick % this.#slots);
  }

  /** Removes a node, if it is on the wheel. */
  cancel(node: TimerNode): void {
    if (node.timerSlot === NO_SLOT) return;
    this.#unlink(node);
    this.size--;
  }

  /**
   * Moves the clock and calls `onTimer` of the nodes that are due: never early, and at most one tick late if this is called once per
   * tick. Each node is off the wheel when it is called, and may schedule or cancel any node. A node that is scheduled in a call is never
   * due in the same `advance`. If a call throws, the next `advance` continues with the rest.
   */
  advance(nowMs: number): void {
    this.setTime(nowMs);
    const tick = Math.floor(this.now / this.#tickMs);
    const first = this.#tick + 1;
    this.#tick = tick;
    // After a jump of more than one turn every slot is processed once.
    const last = Math.min(tick, first + this.#slots - 1);
    for (let t = first; t <= last; t++) this.#collect(t % this.#slots);
    this.#fire();
  }

  /** Moves the clock only: the next `advance` calls the nodes that are due. */
  setTime(nowMs: number): void {
    if (nowMs > this.now) this.now = nowMs;
  }

  /** Moves the due nodes of a slot to the list of nodes to be called; the others wait for a later turn. */
  #collect(slot: number): void {
    let node = this.#heads[slot] as TimerNode | null;
    while (node !== null) {
      const next: TimerNode | null = node.timerNext;
      if (node.timerAt <= this.now) {
        this.#unlink(node);
        this.#append(node, this.#slots);
      }
      node = next;
    }
  }

  #fire(): void {
    let node: TimerNode | null;
    while ((node = this.#heads[this.#slots] as TimerNode | null) !== null) {
      this.cancel(node);
      node.onTimer(this.now);
    }
  }

  #append(node: TimerNode, slot: number): void {
    const tail = this.#tails[slot] as TimerNode | null;
    node.timerSlot = slot;
    node.timerPrev = tail;
    node.timerNext = null;
    if (tail === null) this.#heads[slot] = node;
    else tail.timerNext = node;
    this.#tails[slot] = node;
  }

  #unlink(node: TimerNode): void {
    const { timerPrev, timerNext, timerSlot } = node;
    if (timerPrev === null) this.#heads[timerSlot] = timerNext;
    else timerPrev.timerNext = timerNext;
    if (timerNext === null) this.#tails[timerSlot] = timerPrev;
    else timerNext.timerPrev = timerPrev;
    node.timerPrev = null;
    node.timerNext = null;
    node.timerSlot = NO_SLOT;
  }
}
