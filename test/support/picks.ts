// Balancers without a pool: candidates that count, connections that are only a context, randomness from a seed.
import type { Balance } from "../../src/core/balance.ts";
import { createBalancer } from "../../src/policy/balance.ts";
import type { Balancer, Candidate, HashTable, PickContext } from "../../src/policy/candidate.ts";
import { maglevTable } from "../../src/policy/maglev.ts";
import { Random } from "./random.ts";

export class FakeBackend implements Candidate {
  readonly id: number;
  readonly weight: number;
  slot = 0;
  open = 0;
  cap = Infinity;
  latency = 0;
  picks = 0;
  /** Number of calls of `full`. */
  checks = 0;
  /** Number of calls of `openCount`. */
  reads = 0;

  constructor(id: number, weight = 1) {
    this.id = id;
    this.weight = weight;
  }

  openCount(): number {
    this.reads++;
    return this.open;
  }

  full(): boolean {
    this.checks++;
    return this.open >= this.cap;
  }

  latencyMs(): number {
    return this.latency;
  }
}

/** Backends with the ids 10, 11, ... and these weights. */
export const backendsOf = (...weights: number[]) => weights.map((weight, i) => new FakeBackend(10 + i, weight));

/** A connection: the backends that it has tried, and the hash of its key. */
export const context = (tried: readonly number[] | null = null, hash = 0): PickContext => ({
  tried,
  hashKey: () => hash,
});

export function tableOf(candidates: readonly Candidate[]): HashTable {
  const entries = candidates.filter(({ weight }) => weight > 0);
  return {
    ids: entries.map(({ id }) => id),
    slots: maglevTable(entries.map(({ id, weight }) => ({ name: `backend ${id}`, weight }))),
  };
}

export interface BalancerOptions<C> {
  /** The members of the source_hash table; by default the candidates. */
  all?: readonly C[];
  previous?: Balancer<Candidate> | null;
  startAt?: number;
  random?: Random;
  nowMs?: () => number;
}

export function balancerOf<C extends Candidate>(
  balance: Balance,
  candidates: readonly C[],
  options: BalancerOptions<C> = {},
): Balancer<C> {
  const { all = candidates, previous = null, startAt = 0, random = new Random(1), nowMs = () => 0 } = options;
  const sources = { nowMs, random: () => random.word() / 2 ** 32 };
  const table = balance === "source_hash" ? tableOf(all) : null;
  return createBalancer(candidates, { balance, startAt, sources, table }, previous);
}
