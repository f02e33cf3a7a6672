// What one pick of each balancing algorithm costs, and the making of a Maglev table: `bun bench/picks.ts`. In one thread, without
// connections: the caps and counts are cells in shared memory, as in a worker.
import { BALANCES } from "../src/core/balance.ts";
import { createBalancer } from "../src/policy/balance.ts";
import type { Candidate, PickContext } from "../src/policy/candidate.ts";
import { maglevTable } from "../src/policy/maglev.ts";
import { claimed } from "../src/shared/cells.ts";

const SIZES = [1, 10, 1000];
const PICKS = 200_000;

class Cell implements Candidate {
  readonly id: number;
  readonly weight: number;
  readonly open: Int32Array;

  constructor(id: number, weight: number, open: Int32Array) {
    this.id = id;
    this.weight = weight;
    this.open = open;
  }

  openCount(): number {
    return claimed(this.open);
  }

  full(): boolean {
    return claimed(this.open) >= 1_000_000;
  }

  latencyMs(): number {
    return 1 + (this.id % 7);
  }
}

const context = { tried: null, hash: 1, hashKey: () => (context.hash = Math.imul(context.hash, 0x9e3779b1) >>> 0) };

console.log(`| algorithm | weights | ${SIZES.map((size) => `${size} backends`).join(" | ")} |`);
console.log(`| --- | --- | ${SIZES.map(() => "---").join(" | ")} |`);
for (const balance of BALANCES) {
  for (const weights of ["equal", "different"]) {
    const costs = SIZES.map((size) => `${pickNs(balance, size, weights === "equal" ? 1 : 5).toFixed(0)} ns`);
    console.log(`| ${balance} | ${weights} | ${costs.join(" | ")} |`);
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

function pickNs(balance: (typeof BALANCES)[number], size: number, weights: number): number {
  const memory = new Int32Array(new SharedArrayBuffer(4 * size));
  const candidates = Array.from({ length: size }, (_, i) => new Cell(i, 1 + (i % weights), memory.subarray(i, i + 1)));
  const entries = candidates.map(({ id, weight }) => ({ name: `backend ${id}`, weight }));
  const table = { ids: candidates.map(({ id }) => id), slots: maglevTable(entries) };
  const sources = { nowMs: () => performance.now(), random: Math.random };
  const balancer = createBalancer(candidates, { balance, startAt: 0, sources, table }, null);
  const serve = (count: number): void => {
    for (let i = 0; i < count; i++) {
      const picked = balancer.pick(context satisfies PickContext);
      if (picked !== null) picked.open[0]!++;
      // One connection ends somewhere else.
      memory[(i * 7919) % size]! -= memory[(i * 7919) % size]! > 0 ? 1 : 0;
    }
  };
  serve(PICKS / 10);
  const startedNs = Bun.nanoseconds();
  serve(PICKS);
  return (Bun.nanoseconds() - startedNs) / PICKS;
}

function warmMs(entries: { name: string; weight: number }[]): number {
  for (let i = 0; i < 8; i++) maglevTable(entries);
  const startedNs = Bun.nanoseconds();
  maglevTable(entries);
  return (Bun.nanoseconds() - startedNs) / 1e6;
}
