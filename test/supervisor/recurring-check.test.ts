import { describe, expect, test } from "vitest";
import { sockaddr } from "../../src/platform/sockets.ts";
import type { Outcome, ProbeSpec } from "../../src/supervisor/probe.ts";
import { RecurringCheck, type CheckTask } from "../../src/supervisor/recurring-check.ts";
import { connectOnly } from "../../src/wire/exchange.ts";
import { refusing, silent } from "../support/backends.ts";
import { endpoint } from "../support/endpoints.ts";
import { eventually } from "../support/eventually.ts";
import { calledAfterEach } from "../support/set-up.ts";

const atEnd = calledAfterEach();

const specOf = (address: string, timeoutMs: number): ProbeSpec => ({
  to: { endpoint: endpoint(address), sockaddr: sockaddr(endpoint(address)) },
  source: null,
  timeoutMs,
  visibility: "visible",
  header: new Uint8Array(0),
  tls: null,
  exchange: connectOnly,
});

/** A check whose turn the test decides, and what it reports. */
class Follow implements CheckTask {
  intervalOfChecksMs: number;
  readonly outcomes: Outcome[] = [];
  readonly dueMs: number[] = [];
  closed = 0;
  readonly check: RecurringCheck;
  readonly #spec: ProbeSpec;

  constructor(spec: ProbeSpec, intervalMs: number) {
    this.#spec = spec;
    this.intervalOfChecksMs = intervalMs;
    this.check = new RecurringCheck(7, this, {
      due: () => void this.dueMs.push(performance.now()),
      closed: () => void this.closed++,
    });
    atEnd.push(() => this.check.stop());
  }

  spec(): ProbeSpec {
    return this.#spec;
  }

  intervalMs(): number {
    return this.intervalOfChecksMs;
  }

  probed(outcome: Outcome): void {
    this.outcomes.push(outcome);
  }

  isDue(times: number): Promise<unknown> {
    return eventually(`it is due ${times} times`, () => this.dueMs.length >= times);
  }
}

describe("a recurring check", () => {
  test("is due again only after it has run and closed, an interval after its start", async () => {
    const follow = new Follow(specOf(await refusing(), 1000), 200);
    await follow.isDue(1);
    const begunMs = performance.now();
    follow.check.begin();
    await eventually("it has closed", () => follow.closed === 1);
    expect(follow.outcomes).toMatchObject([{ result: "failure", silent: false }]);
    await follow.isDue(2);
    // 10 % jitter; a timer counts in whole milliseconds.
    expect(follow.dueMs[1]! - begunMs).toBeGreaterThanOrEqual(178);
    expect(follow.dueMs).toHaveLength(2);
  });

  test("is silent after a check without an answer", async () => {
    using backend = await silent();
    const spec = {
      ...specOf(backend.address, 50),
      exchange: { ...connectOnly, begin: () => ({ is: "more", send: null }) as const },
    };
    const follow = new Follow(spec, 10);
    await follow.isDue(1);
    expect(follow.check.silent).toBe(false);
    follow.check.begin();
    await eventually("it has closed", () => follow.closed === 1);
    expect(follow.check.silent).toBe(true);
  });

  test("is first due within a tenth of the interval, and at once with a new, shorter one", async () => {
    const follow = new Follow(specOf(await refusing(), 1000), 1_000_000_000);
    expect(follow.dueMs).toEqual([]);
    follow.intervalOfChecksMs = 1;
    follow.check.reschedule();
    await follow.isDue(1);
    // It waits for its turn now, so another interval makes no difference.
    follow.check.reschedule();
    expect(follow.dueMs).toHaveLength(1);
  });

  test("reports nothing after stop, whether it is waiting or in flight", async () => {
    using backend = await silent();
    const spec = {
      ...specOf(backend.address, 30),
      exchange: { ...connectOnly, begin: () => ({ is: "more", send: null }) as const },
    };
    const [waiting, running, other] = [1_000_000, 1, 1].map((intervalMs) => new Follow(spec, intervalMs));
    await Promise.all([running!.isDue(1), other!.isDue(1)]);
    running!.check.begin();
    for (const { check } of [waiting!, running!]) check.stop();
    expect([waiting!.closed, running!.closed]).toEqual([1, 1]);
    // A check that begins later ends at its timeout, so the stopped one would have ended before.
    other!.check.begin();
    await eventually("the other has ended", () => other!.outcomes.length === 1);
    expect([waiting!.outcomes, running!.outcomes]).toEqual([[], []]);
    expect([waiting!.dueMs.length, running!.dueMs.length]).toEqual([0, 1]);
  });
});
