import { describe, expect, test } from "vitest";
import { LATENCY_DECAY_MS, Latency } from "../../src/policy/latency.ts";
import { backendsOf, balancerOf, context } from "../support/picks.ts";

describe("least_latency", () => {
  const withLatency = (...latencies: number[]) => {
    const all = backendsOf(...latencies.map(() => 1));
    all.forEach((backend, i) => (backend.latency = latencies[i]!));
    return all;
  };

  test("picks the faster one of two", () => {
    const balancer = balancerOf("least_latency", withLatency(8, 2));
    for (let i = 0; i < 20; i++) expect(balancer.pick(context())!.id).toBe(11);
  });

  test("spreads connections that stay open by the inverse of the latency", () => {
    const all = withLatency(9, 3);
    const balancer = balancerOf("least_latency", all);
    for (let i = 0; i < 400; i++) balancer.pick(context())!.open++;
    expect(all.map(({ open }) => open)).toEqual([100, 300]);
  });

  test("follows the weights where latencies differ by noise, and the latency as soon as it is a difference", () => {
    const all = backendsOf(1, 2, 5);
    [0.05, 0.2, 0.45].forEach((latency, i) => (all[i]!.latency = latency));
    const shares = (): number[] => {
      const balancer = balancerOf("least_latency", all);
      const picks = Array.from({ length: 8000 }, () => balancer.pick(context())!);
      return all.map((backend) => picks.filter((picked) => picked === backend).length / picks.length);
    };
    const even = shares();
    [1 / 8, 2 / 8, 5 / 8].forEach((share, i) => expect(even[i]).toBeCloseTo(share, 1));
    all[2]!.latency = 0.9;
    expect(shares()[2]).toBe(0);
  });

  test("tries a backend whose latency is not known before a slow one, and does not flood it", () => {
    const all = withLatency(5, 0);
    const balancer = balancerOf("least_latency", all);
    expect(balancer.pick(context())!.id).toBe(11);
    all[1]!.open = 600;
    expect(balancer.pick(context())!.id).toBe(10);
  });
});

describe("Latency", () => {
  test("is not known before the first sample, and then that sample", () => {
    const latency = new Latency();
    expect(latency.at(5)).toBe(0);
    latency.add(12, 5);
    expect(latency.at(5)).toBe(12);
  });

  test("follows samples, faster after longer pauses between them", () => {
    const [quick, slow] = [new Latency(), new Latency()];
    for (const latency of [quick, slow]) latency.add(10, 0);
    quick.add(110, 1);
    slow.add(110, LATENCY_DECAY_MS);
    expect(quick.at(1)).toBeCloseTo(15, 5);
    expect(slow.at(LATENCY_DECAY_MS)).toBeCloseTo(10 + 100 * (1 - Math.exp(-1)), 5);
  });

  test("fades, so that a backend that was slow once is tried again", () => {
    const latency = new Latency();
    latency.add(3000, 0);
    expect(latency.at(LATENCY_DECAY_MS)).toBeCloseTo(3000 / Math.E, 5);
    expect(latency.at(15 * LATENCY_DECAY_MS)).toBeLessThan(0.01);
  });
});
