// The contract that every balancing algorithm keeps: what it sees of a backend and of a connection, and what it answers.

/** A backend that may be picked, as an algorithm sees it. */
export interface Candidate {
  readonly id: number;
  /** A whole number, in a unit that all candidates share; 0 is never picked. */
  readonly weight: number;
  /** Connections open or being dialled, over all workers. */
  openCount(): number;
  /** At its cap at this moment. */
  full(): boolean;
  /** Moving average of the connect time in milliseconds at `nowMs`; 0 = not known. */
  latencyMs(nowMs: number): number;
}

/** A connection that needs a backend, as an algorithm sees it. */
export interface PickContext {
  /** Ids of the backends that failed for this connection and must not be picked again; null = none. */
  readonly tried: readonly number[] | null;
  /** Hash of what the pool's `hash_key` names, an unsigned 32-bit number. Computed when an algorithm asks. */
  hashKey(): number;
}

/** Where an algorithm gets time and chance from. */
export interface Sources {
  /** Milliseconds on a clock that never goes back. */
  nowMs(): number;
  /** Uniform in [0, 1). */
  random(): number;
}

/** A Maglev table (maglev.ts) over the backends of a tier, whether they are up or not. */
export interface HashTable {
  /** Ids of the backends, by their number in the table. */
  readonly ids: readonly number[];
  /** The number of a backend in each slot. */
  readonly slots: Uint32Array;
}

/** What an algorithm begins with, besides its candidates. */
export interface Beginning {
  /** Of the predecessor, by id; null = there is none. */
  readonly waits: ReadonlyMap<number, number> | null;
  /** Without a predecessor: how many picks to skip, so that several workers do not all begin with the same backend. */
  readonly startAt: number;
  readonly sources: Sources;
  /** For source_hash. */
  readonly table: HashTable | null;
}

/** Picks among the candidates that it was made with. Where these change, a new balancer takes over from this one. */
export interface Balancer<C extends Candidate> {
  /** The backend for the next connection, or null where every candidate is full or was tried. Hot path. */
  pick(context: PickContext): C | null;

  /** A connection of the candidate, which this balancer or its predecessor picked, has given back its place. Hot path. */
  released(candidate: C): void;

  /**
   * What a successor needs to go on fairly: by id, how long a candidate waits for its next turn, as a part of the time between two
   * of its turns, 0 to 1. Empty where an algorithm has no memory.
   */
  waits(): ReadonlyMap<number, number>;
}

/** Makes a balancer. `candidates` are in the order of the config, or, for equal weights, of their turns. */
export type BalancerMaker = <C extends Candidate>(candidates: readonly C[], beginning: Beginning) => Balancer<C>;

/** Whether a connection that has tried `tried` may go to the candidate now. */
export function isFree(candidate: Candidate, tried: readonly number[] | null): boolean {
  return (tried === null || !tried.includes(candidate.id)) && !candidate.full();
}

/** The memory of an algorithm that has none. */
export const NO_WAITS: ReadonlyMap<number, number> = new Map();
