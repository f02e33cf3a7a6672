// Which backend gets a connection: the registry of the algorithms, and the tier of backends that they choose from. Pure:
// no sockets, no clock, no shared memory.
import type { Balancer, BalancerMaker, Candidate } from "./candidate.ts";
import { createLeastConnections } from "./least-connections.ts";
import { createRoundRobin } from "./round-robin.ts";

export type { Balancer, Candidate } from "./candidate.ts";

/** Every algorithm by its name in the config. */
const ALGORITHMS = {
  round_robin: createRoundRobin,
  least_connections: createLeastConnections,
} as const satisfies Record<string, BalancerMaker>;

export type Balance = keyof typeof ALGORITHMS;

export const BALANCES = Object.keys(ALGORITHMS) as Balance[];

/**
 * Makes the balancer for a set of candidates. `previous` is the one that it replaces, of any algorithm, or null: its
 * memory is taken over by the candidates' ids. `startAt` is for the first one only: how many turns to skip, so that
 * several workers (by their index) do not all begin with the same backend.
 */
export function createBalancer<C extends Candidate>(
  kind: Balance,
  candidates: readonly C[],
  previous: Balancer<Candidate> | null,
  startAt: number,
): Balancer<C> {
  const make: BalancerMaker = ALGORITHMS[kind];
  return make(candidates, previous && previous.arrears(), startAt);
}

/**
 * The backends that new connections may go to: those that are up, take connections (a weight above 0) and are no backup;
 * if there is none, the backups of which the same is true. `up` holds ids. Keeps the order.
 */
export function eligible<B extends { readonly id: number; readonly weight: number; readonly backup: boolean }>(
  backends: readonly B[],
  up: Iterable<number>,
): B[] {
  const isUp = new Set(up);
  const usable = backends.filter((backend) => backend.weight > 0 && isUp.has(backend.id));
  const primaries = usable.filter((backend) => !backend.backup);
  return primaries.length > 0 ? primaries : usable;
}
