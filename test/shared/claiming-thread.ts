// A thread of the tests in this folder: claims and releases as its job says, and counts what it sees.
import { BandwidthRate } from "../../src/policy/bandwidth.ts";
import { SharedBandwidth } from "../../src/shared/bandwidth.ts";
import { TimeCells } from "../../src/shared/time-cells.ts";
import { claim, giveBack } from "../../src/shared/cells.ts";
import { ClientTable, type ClientLimits } from "../../src/shared/clients.ts";
import { serveJob } from "../support/threads.ts";

/** Claims and releases the same cap `times` times. `inside` counts the holders of a place separately. */
export interface CapJob {
  kind: "cap";
  cell: Int32Array;
  inside: Int32Array;
  max: number;
  times: number;
}

/** Claims for each of the clients 0..clients-1 at each of `steps` times from `fromNs`, until it is refused. */
export interface RateJob {
  kind: "rate";
  memory: SharedArrayBuffer;
  clients: number;
  limits: ClientLimits;
  fromNs: number;
  stepNs: number;
  steps: number;
}

/** All threads wait for each other before each client, and after a number of steps, so that none finishes before another begins. */
const STEPS_TOGETHER = 100;
const CLAIMS_TOGETHER = 3000;

/** Opens and closes connections of clients drawn at random; `inside` has a cell for each client. */
export interface ClientCapJob {
  kind: "client cap";
  memory: SharedArrayBuffer;
  inside: Int32Array;
  limits: ClientLimits;
  held: number;
  times: number;
  seed: number;
}

/** Reserves bandwidth at one moment, and returns half of it, `times` times. */
export interface BandwidthJob {
  kind: "bandwidth";
  memory: SharedArrayBuffer;
  bytesPerSecond: number;
  bytes: number;
  nowMs: number;
  times: number;
}

export type Job = CapJob | RateJob | ClientCapJob | BandwidthJob;

export interface CapResult {
  admitted: number;
  refused: number;
  /** Number of times that more than the cap were inside. */
  broken: number;
}

/** Admitted connections by client. */
export type RateResult = number[];

export interface ClientCapResult {
  admitted: number;
  answers: Record<number, number>;
  broken: number;
}

serveJob<Job>((job, meet) => {
  switch (job.kind) {
    case "cap":
      return competeForCap(job, meet);
    case "rate":
      return spendTokens(job, meet);
    case "client cap":
      return openAndClose(job, meet);
    case "bandwidth":
      return reserveBandwidth(job, meet);
  }
});

/** The end of each reservation, in order. */
function reserveBandwidth(job: BandwidthJob, meet: () => void): number[] {
  const rate = new BandwidthRate(job.bytesPerSecond);
  const limit = new SharedBandwidth(new TimeCells(job.memory), 0, "upload", rate, 0);
  const ends: number[] = [];
  for (let i = 0; i < job.times; i++) {
    if (i % STEPS_TOGETHER === 0) meet();
    ends.push(limit.reserve(job.bytes, job.nowMs, false));
    limit.giveBack(job.bytes / 2);
  }
  return ends;
}

function competeForCap({ cell, inside, max, times }: CapJob, meet: () => void): CapResult {
  const result = { admitted: 0, refused: 0, broken: 0 };
  for (let i = 0; i < times; i++) {
    // All meet from time to time, because otherwise one might finish before another begins.
    const together = i % CLAIMS_TOGETHER === 0;
    if (together) meet();
    const admitted = claim(cell, max);
    if (admitted) {
      result.admitted++;
      if (Atomics.add(inside, 0, 1) >= max) result.broken++;
    } else {
      result.refused++;
    }
    if (together) meet();
    if (!admitted) continue;
    Atomics.sub(inside, 0, 1);
    giveBack(cell);
  }
  return result;
}

function spendTokens(job: RateJob, meet: () => void): RateResult {
  const table = new ClientTable(job.memory);
  const admitted: number[] = [];
  for (let client = 0; client < job.clients; client++) {
    let count = 0;
    for (let step = 0; step <= job.steps; step++) {
      if (step % STEPS_TOGETHER === 0) meet();
      const now = job.fromNs + step * job.stepNs;
      while (table.claim(0, 0, 0xffff, client, job.limits, now) >= 0) count++;
    }
    admitted.push(count);
  }
  return admitted;
}

function openAndClose(job: ClientCapJob, meet: () => void): ClientCapResult {
  const { inside, limits } = job;
  const table = new ClientTable(job.memory);
  const result: ClientCapResult = { admitted: 0, answers: {}, broken: 0 };
  const held: { client: number; entry: number }[] = [];
  let state = job.seed;
  const below = (end: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * end);
  };
  const close = ({ client, entry }: { client: number; entry: number }): void => {
    Atomics.sub(inside, client, 1);
    table.release(entry);
  };
  meet();
  for (let i = 0; i < job.times; i++) {
    const client = below(inside.length);
    const entry = table.claim(0, 0, 0xffff, client, limits, i * 1_000_000);
    if (entry < 0) {
      result.answers[entry] = (result.answers[entry] ?? 0) + 1;
    } else {
      result.admitted++;
      if (Atomics.add(inside, client, 1) >= limits.maxOpen) result.broken++;
      held.push({ client, entry });
    }
    if (held.length > job.held) close(held.splice(below(held.length), 1)[0]!);
  }
  for (const one of held) close(one);
  return result;
}
