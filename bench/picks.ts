// The cost of one pick of each balancing algorithm, with the release of the connection, and of making a Maglev table: `bun bench/picks.ts`.
// It runs in one thread without connections: the caps and counts are cells in shared memory, as in a worker.
import { BALANCES, type Balance } from "../src/core/balance.ts";
import { createBalancer } from "../src/policy/balance.ts";
import type { Candidate, PickContext } from "../src/policy/candidate.ts";
import { maglevTable } from "../src/policy/maglev.ts";
import { claimed } from "../src/shared/cells.ts";

const CASES = [
  { title: "1 backend", size: 1, full: 0 },
  { title: "10 backends", size: 10, full: 0 },
  { title: "1000 backends", size: 1000, full: 0 },
  { title: "1000, the first 900 full", size: 1000, full: 900 },
];
const PICKS = 100_000;
/** Number of runs, of which the fastest counts: the machine's other work disturbs the others. */
const RUNS = 5;
const CAP = 1_000_000;

class Cell implements Candidate {
  readonly id: number;
  readonly weight: number;
  readonly open: Int32Array;
  slot = 0;

  constructor(id: number, weight: number, open: Int32Array) {
    this.id = id;
    this.weight = weight;
    this.open = open;
  }

  openCount(): number {
    return claimed(this.open);
  }

  full(): boolean {
    return claimed(this.open) >= CAP;
  }

  latencyMs(): number {
    return 1 + (this.id % 7);
  }
}

const context = { tried: null, hash: 1, hashKey: () => (context.hash = Math.imul(context.hash, 0x9e3779b1) >>> 0) };

console.log(`| algorithm | weights | ${CASES.map(({ title }) => title).join(" | ")} |`);
console.log(`| --- | --- | ${CASES.map(() => "---").join(" | ")} |`);
for (const balance of BALANCES) {
  for (const weights of [1, 5]) {
    const costs = CASES.map(({ size, full }) => `${pickNs({ balance, size, weights, full }).toFixed(0)} ns`);
    console.log(`| ${balance} | ${weights === 1 ? "equal" : "different"} | ${costs.join(" | ")} |`);
  }
}
for (const size of [10, 1000]) {
  const entries = Array.from({ length: size }, (_, i) => ({
    name: `10.0.${i >> 8}.${i & 255}:80`,
    weight: 1 + (i % 5),
  }));
  const startedNs = Bun.nanoseconds();
  maglevTable(entries);
  const coldMs = (Bun.nanoseconds() - startedNs) / 1e6;
  console.log(
    `Maglev table of ${size} backends, the first and the tenth time: ${coldMs.toFixed(1)} ms, ${warmMs(entries).toFixed(1)} ms`,
  );
}

interface Case {
  balance: Balance;
  size: number;
  /** Weights from 1 to this number, in turn. */
  weights: number;
  /** Number of candidates, from the first on, that are at their cap. */
  full: number;
}

function pickNs({ balance, size, weights, full }: Case): number {
  const memory = new Int32Array(new SharedArrayBuffer(4 * size)).fill(CAP, 0, full);
  const candidates = Array.from({ length: size }, (_, i) => new Cell(i, 1 + (i % weights), memory.subarray(i, i + 1)));
  const entries = candidates.map(({ id, weight }) => ({ name: `backend ${id}`, weight }));
  const table = { ids: candidates.map(({ id }) => id), slots: maglevTable(entries) };
  const sources = { nowMs: () => performance.now(), random: Math.random };
  const balancer = createBalancer(candidates, { balance, startAt: 0, sources, table }, null);
  const serve = (count: number): void => {
    for (let i = 0; i < count; i++) {
      const picked = balancer.pick(context satisfies PickContext);
      if (picked !== null) picked.open[0]!++;
      // One connection ends at another backend.
      const at = full + ((i * 7919) % (size - full));
      if (memory[at] === 0) continue;
      memory[at]!--;
      balancer.released(candidates[at]!);
    }
  };
  serve(PICKS / 10);
  const runs = Array.from({ length: RUNS }, () => {
    const startedNs = Bun.nanoseconds();
    serve(PICKS);
    return (Bun.nanoseconds() - startedNs) / PICKS;
  });
  return Math.min(...runs);
}

function warmMs(entries: { name: string; weight: number }[]): number {
  for (let i = 0; i < 8; i++) maglevTable(entries);
  const startedNs = Bun.nanoseconds();
  maglevTable(entries);
  return (Bun.nanoseconds() - startedNs) / 1e6;
}
