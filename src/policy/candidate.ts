// The contract that every balancing algorithm keeps: what it sees of a backend, and what it answers.

/** A backend that may be picked, as an algorithm sees it. */
export interface Candidate {
  readonly id: number;
  /** 0 is never picked. */
  readonly weight: number;
  /** Connections open or being dialled, over all workers. */
  openCount(): number;
  /** At its cap just now. */
  full(): boolean;
}

/** Picks among the candidates that it was made with; a change among them is a new balancer that takes over from this one. */
export interface Balancer<C extends Candidate> {
  /** Who gets the next connection, or null if nobody can. `tried` holds the ids that are not to be picked again. */
  pick(tried: readonly number[] | null): C | null;

  /**
   * What a successor needs to go on fairly: by id, how many picks a candidate is behind its share (below 0: ahead). Empty
   * where an algorithm has no memory.
   */
  arrears(): ReadonlyMap<number, number>;
}

/** Makes a balancer. `candidates` keep their order; `startAt` says how many picks ahead of the beginning to begin. */
export type BalancerMaker = <C extends Candidate>(
  candidates: readonly C[],
  arrears: ReadonlyMap<number, number> | null,
  startAt: number,
) => Balancer<C>;

/** Whether a connection that has tried `tried` may go to the candidate now. */
export function isFree(candidate: Candidate, tried: readonly number[] | null): boolean {
  return (tried === null || !tried.includes(candidate.id)) && !candidate.full();
}
