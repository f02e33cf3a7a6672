// Picks the backend of a connection: the registry of the algorithms. Pure: no sockets, no clock, no shared memory.
import type { Balance } from "../core/balance.ts";
import type { Balancer, BalancerMaker, Candidate, HashTable, Loads, Sources } from "./candidate.ts";
import { createFirst } from "./first.ts";
import { createLeastConnections } from "./least-connections.ts";
import { createLeastLatency } from "./least-latency.ts";
import { createRandomTwo } from "./random-two.ts";
import { createRoundRobin } from "./round-robin.ts";
import { createSourceHash } from "./source-hash.ts";

/** Every algorithm by its name in the config. */
const ALGORITHMS: Record<Balance, BalancerMaker> = {
  round_robin: createRoundRobin,
  least_connections: createLeastConnections,
  random_two: createRandomTwo,
  least_latency: createLeastLatency,
  source_hash: createSourceHash,
  first: createFirst,
};

export interface Setting<C extends Candidate> {
  balance: Balance;
  /** For the first balancer of a worker: how many picks to skip, by the worker's index. */
  startAt: number;
  sources: Sources;
  /** For source_hash: the table over these candidates and those that are unusable now. */
  table: HashTable | null;
  /** The loads of some of the candidates, if they can be read without the candidates. */
  loadsOf?: (candidates: readonly C[]) => Loads;
}

/**
 * Makes the balancer for a set of candidates. `previous` is the balancer that it replaces, of any algorithm, or null: its state is taken
 * over by the candidates' ids.
 */
export function createBalancer<C extends Candidate>(
  candidates: readonly C[],
  { balance, startAt, sources, table, loadsOf = loadsByCandidate }: Setting<C>,
  previous: Balancer<Candidate> | null,
): Balancer<C> {
  const make: BalancerMaker = ALGORITHMS[balance];
  return make(candidates, { waits: previous && previous.waits(), startAt, sources, table, loadsOf });
}

function loadsByCandidate(candidates: readonly Candidate[]): Loads {
  const at = (index: number): Candidate => candidates[index] as Candidate;
  return { openCount: (index) => at(index).openCount(), full: (index) => at(index).full() };
}
