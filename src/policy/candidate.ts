// The contract of the balancing algorithms: what they see of a backend and of a connection, and what they return.

/** A backend that may be picked, as an algorithm sees it. */
export interface Candidate {
  readonly id: number;
  /** A whole number, in a unit that all candidates share; 0 is never picked. */
  readonly weight: number;
  /** Connections open or being dialed, over all workers. */
  openCount(): number;
  /** At its cap now. */
  full(): boolean;
  /** Moving average of the connect time in milliseconds at `nowMs`; 0 = unknown. */
  latencyMs(nowMs: number): number;
  /** Written by the balancer that has the candidate: its index there. */
  slot: number;
}

/** What candidates tell of their connections, by their index in a list: of many candidates, none is in the CPU's caches when it is read. */
export interface Loads {
  /** See Candidate. */
  openCount(index: number): number;
  full(index: number): boolean;
}

/** A connection that needs a backend, as an algorithm sees it. */
export interface PickContext {
  /** Ids of the backends that failed for this connection and must not be picked again; null = none. */
  readonly tried: readonly number[] | null;
  /** Hash of the pool's `hash_key` value, an unsigned 32-bit number. Computed when an algorithm calls it. */
  hashKey(): number;
}

/** The source of time and randomness of an algorithm. */
export interface Sources {
  /** Milliseconds on a monotonic clock. */
  nowMs(): number;
  /** Uniform in [0, 1). */
  random(): number;
}

/** A Maglev table (maglev.ts) over all backends of a tier, up or not. */
export interface HashTable {
  /** Ids of the backends, by their number in the table. */
  readonly ids: readonly number[];
  /** The number of a backend in each slot. */
  readonly slots: Uint32Array;
}

/** The initial state of an algorithm, besides its candidates. */
export interface Beginning<C extends Candidate> {
  /** The state of the predecessor, by id; null = there is none. */
  readonly waits: ReadonlyMap<number, number> | null;
  /** Without a predecessor: how many picks to skip, so that workers do not all begin with the same backend. */
  readonly startAt: number;
  readonly sources: Sources;
  /** For source_hash. */
  readonly table: HashTable | null;
  /** The loads of these candidates. */
  loadsOf(candidates: readonly C[]): Loads;
}

/** Picks among the candidates that it was made with. When these change, a new balancer replaces it. */
export interface Balancer<C extends Candidate> {
  /** The backend for the next connection, or null if every candidate is full or was tried. Hot path. */
  pick(context: PickContext): C | null;

  /** A connection of the candidate, picked by this balancer or its predecessor, has released its place. Hot path. */
  released(candidate: C): void;

  /**
   * The state that makes a successor fair: by id, how long a candidate waits for its next turn, as a fraction of the time between two of
   * its turns, 0 to 1. Empty for an algorithm without state.
   */
  waits(): ReadonlyMap<number, number>;
}

/** Makes a balancer. `candidates` are in the order of the config, or, for equal weights, of their turns. */
export type BalancerMaker = <C extends Candidate>(candidates: readonly C[], beginning: Beginning<C>) => Balancer<C>;

/** Whether a connection that has tried `tried` may go to the candidate now. */
export function isFree(candidate: Candidate, tried: readonly number[] | null): boolean {
  return (tried === null || !tried.includes(candidate.id)) && !candidate.full();
}

/** The state of an algorithm that keeps none. */
export const NO_WAITS: ReadonlyMap<number, number> = new Map();
