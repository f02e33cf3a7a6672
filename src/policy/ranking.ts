// Keeps the candidates in order, so that a pick does not look at each: a winner tree (Knuth, The Art of Computer Programming, volume 3,
// section 5.4.1), in which a change of one candidate costs one comparison per level. `beats` is the order of the algorithm. Other workers
// change counts without notice, so every pick reads the winner and a few other candidates again, in rotation.
import type { Balancer, Beginning, Candidate, Loads, PickContext } from "./candidate.ts";
import { Turns } from "./turns.ts";

/** With at most this many candidates, a pick reads all of them again, so it uses their current state. */
export const REREAD_ALL_MAX = 64;
/** Number of candidates that a pick reads again if there are more. */
export const REREAD = 8;

/** Why a candidate cannot win now; bits. */
const FULL = 1;
const TRIED = 2;

export abstract class Ranking<C extends Candidate> implements Balancer<C> {
  protected readonly candidates: readonly C[];
  protected readonly turns: Turns;
  /** Connections per unit of weight at the last read, if the order depends on them. Equal quotients are equal numbers. */
  protected readonly load: Float64Array;

  readonly #loads: Loads;
  readonly #counts: boolean;
  readonly #open: Float64Array;
  readonly #out: Uint8Array;
  /** Node 1 is the root, the children of i are 2i and 2i + 1, and the leaves begin at #leaves. The index of the winner below, or -1. */
  readonly #winners: Int32Array;
  readonly #leaves: number;
  #fullCount = 0;
  readonly #rereads: number;
  /** Where the next pick begins to read again. */
  #cursor = 0;
  /** The last answer, whose count is an estimate; -1 = none. */
  #picked = -1;
  /** Allocated when a connection has tried a candidate. */
  #indices: Map<number, number> | null = null;

  /** `counts`: the order depends on the numbers of open connections. */
  constructor(candidates: readonly C[], { waits, startAt, loadsOf }: Beginning<C>, counts: boolean) {
    this.candidates = candidates.filter(({ weight }) => weight > 0);
    this.candidates.forEach((candidate, index) => (candidate.slot = index));
    this.#loads = loadsOf(this.candidates);
    const known = waits !== null && this.candidates.some(({ id }) => waits.has(id)) ? waits : null;
    const size = this.candidates.length;
    this.turns = new Turns(this.candidates, known);
    this.#open = new Float64Array(counts ? size : 0);
    this.load = new Float64Array(counts ? size : 0);
    this.#counts = counts;
    this.#rereads = size <= REREAD_ALL_MAX ? size : REREAD;
    this.#out = new Uint8Array(size);
    this.#leaves = 2 ** Math.ceil(Math.log2(Math.max(1, size)));
    this.#winners = new Int32Array(2 * this.#leaves).fill(-1);
    this.#build();
    if (known === null && size > 0) for (let i = 0; i < startAt; i++) this.#take(this.#winners[1] as number);
    if (!counts) return;
    for (let index = 0; index < size; index++) this.#note(index, this.#loads.openCount(index));
    this.#build();
  }

  /** Whether `b` goes before `a`, whose index is lower. */
  protected abstract beats(b: number, a: number): boolean;

  pick({ tried }: PickContext): C | null {
    this.#rereadSome();
    if (tried === null) return this.#pickBest();
    for (const id of tried) this.#mark(id, TRIED);
    const picked = this.#pickBest();
    for (const id of tried) this.#mark(id, 0);
    return picked;
  }

  released(candidate: C): void {
    if (!(this.#counts && this.#rereads < this.candidates.length) && this.#fullCount === 0) return;
    // A candidate that is not in the list has the slot of a former balancer.
    if (this.candidates[candidate.slot] === candidate) this.#reread(candidate.slot);
  }

  waits(): ReadonlyMap<number, number> {
    return this.turns.waits();
  }

  #pickBest(): C | null {
    for (;;) {
      const index = this.#winners[1] as number;
      if (index < 0) {
        if (!this.#findFree()) return null;
      } else if (!this.#reread(index)) {
        // It is about to get one more connection; the next pick sees whether it did.
        if (this.#counts) this.#note(index, (this.#open[index] as number) + 1);
        this.#picked = this.#counts ? index : -1;
        this.#take(index);
        return this.candidates[index] as C;
      }
    }
  }

  #take(index: number): void {
    this.turns.take(index);
    this.#update(index);
  }

  #rereadSome(): void {
    if (this.#picked >= 0) this.#reread(this.#picked);
    if (!this.#counts && this.#fullCount === 0) return;
    const size = this.candidates.length;
    for (let left = this.#rereads; left > 0; left--) {
      const index = this.#cursor;
      this.#cursor = index + 1 === size ? 0 : index + 1;
      const isFull = (this.#out[index] as number) & FULL;
      // A candidate that was not full and has the same count as before is not full.
      if (isFull || (this.#counts && this.#loads.openCount(index) !== this.#open[index])) this.#reread(index);
    }
  }

  // Every candidate is unusable: checks whether one of those that were full no longer is.
  #findFree(): boolean {
    let found = false;
    for (let index = 0; index < this.candidates.length; index++) {
      if (this.#out[index] === FULL && this.#reread(index)) found = true;
    }
    return found;
  }

  // Whether something differs from the state that the order was made from.
  #reread(index: number): boolean {
    const out = this.#out[index] as number;
    const full = this.#loads.full(index) ? FULL : 0;
    const open = this.#counts ? this.#loads.openCount(index) : 0;
    if (full === (out & FULL) && (!this.#counts || open === this.#open[index])) return false;
    if (this.#counts) this.#note(index, open);
    if (full !== (out & FULL)) {
      this.#out[index] = out ^ FULL;
      this.#fullCount += full ? 1 : -1;
      if (!full) this.turns.skipMissed(index);
    }
    this.#update(index);
    return true;
  }

  #note(index: number, open: number): void {
    this.#open[index] = open;
    this.load[index] = open / (this.turns.weights[index] as number);
  }

  #mark(id: number, tried: typeof TRIED | 0): void {
    const index = this.#indexOf(id);
    if (index < 0) return;
    this.#out[index] = ((this.#out[index] as number) & FULL) | tried;
    this.#update(index);
  }

  #update(index: number): void {
    const winners = this.#winners;
    let node = this.#leaves + index;
    let winner = this.#out[index] === 0 ? index : -1;
    winners[node] = winner;
    while (node > 1) {
      const other = winners[node ^ 1] as number;
      // The one with the lower index is the left child.
      if (other >= 0 && (winner < 0 || (node & 1 ? !this.beats(winner, other) : this.beats(other, winner))))
        winner = other;
      node >>= 1;
      // Another candidate wins here, as before: nothing changes above.
      if (winner === winners[node] && winner !== index) return;
      winners[node] = winner;
    }
  }

  #build(): void {
    for (let index = 0; index < this.candidates.length; index++) this.#winners[this.#leaves + index] = index;
    for (let node = this.#leaves - 1; node > 0; node--) this.#winners[node] = this.#winnerBelow(node);
  }

  #winnerBelow(node: number): number {
    const a = this.#winners[2 * node] as number;
    const b = this.#winners[2 * node + 1] as number;
    return a < 0 || (b >= 0 && this.beats(b, a)) ? b : a;
  }

  #indexOf(id: number): number {
    this.#indices ??= new Map(this.candidates.map((candidate, index) => [candidate.id, index]));
    return this.#indices.get(id) ?? -1;
  }
}
