import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { formatAddress, parseAddress, type Address } from "../../src/core/address.ts";
import { KEPT_MAX, LEARN_MS, Resolver, RETRY_MS, type Lookup } from "../../src/supervisor/resolve.ts";
import { configOf } from "../support/config.ts";
import { recordingLog } from "../support/recording-log.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** A resolver whose names the test answers, and its log. */
function resolver(lookUp?: Lookup) {
  const { log, said } = recordingLog();
  const made = new Resolver(log, lookUp);
  const known = (host: string): string[] => made.addresses(host).map((address) => formatAddress(...address));
  return { resolver: made, said, known };
}

const pools = (...backends: string[]) =>
  configOf(
    `[listeners.web]\nbind = ":8080"\npool = "p0"\n${backends
      .map((list, i) => `[pools.p${i}]\nbackends = [${list}]\nresolve = "${10 * (i + 1)}s"\n`)
      .join("")}`,
  ).pools;

/** A promise that the test settles, as the system's resolver would at any time. */
interface Question {
  host: string;
  answer: (...addresses: string[]) => void;
  fail: (message: string) => void;
}

function asked(): { lookUp: Lookup; questions: Question[] } {
  const questions: Question[] = [];
  const lookUp = (host: string): Promise<Address[]> =>
    new Promise((resolve, reject) => {
      questions.push({
        host,
        answer: (...addresses) => resolve(addresses.map((text) => parseAddress(text)!)),
        fail: (message) => reject(new Error(message)),
      });
    });
  return { lookUp, questions };
}

const turn = (): Promise<unknown> => vi.advanceTimersByTimeAsync(0);

describe("learn", () => {
  test("looks up each name once, and does not look up addresses", async () => {
    const { lookUp, questions } = asked();
    const { resolver: one, known } = resolver(lookUp);
    const learnt = one.learn(pools('"a.test:80", "10.0.0.1:80", "unix:/x"', '"a.test:81", "b.test:80"'));
    expect(questions.map(({ host }) => host).sort()).toEqual(["a.test", "b.test"]);
    for (const question of questions) question.answer("10.1.0.1", "10.1.0.2");
    await learnt;
    expect(known("a.test")).toEqual(["10.1.0.1", "10.1.0.2"]);
    expect(known("c.test")).toEqual([]);
    one.follow(pools('"a.test:80"'), () => undefined);
    await one.learn(pools('"a.test:80"'));
    expect(questions.length).toBe(2);
    one.stop();
  });

  test("waits for the slowest, but not for ever; a late answer is used", async () => {
    const { lookUp, questions } = asked();
    const { resolver: one, said, known } = resolver(lookUp);
    const config = pools('"a.test:80", "b.test:80"');
    let done = false;
    const learnt = one.learn(config).then(() => (done = true));
    questions[0]!.answer("10.1.0.1");
    await vi.advanceTimersByTimeAsync(LEARN_MS - 1);
    expect(done).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    await learnt;
    expect(known("a.test")).toEqual(["10.1.0.1"]);
    expect(one.missing(config[0]!)).toEqual(["b.test"]);
    expect(said).toEqual([
      {
        level: "warn",
        event: "name does not resolve",
        host: "b.test",
        error: "no answer within 5 s",
        addresses_kept: 0,
      },
    ]);
    const told: string[] = [];
    one.follow(config, (pool) => told.push(pool));
    expect(told).toEqual(["p0"]);
    questions[1]!.answer("10.1.0.2");
    await turn();
    expect(told).toEqual(["p0", "p0"]);
    expect(known("b.test")).toEqual(["10.1.0.2"]);
    expect(one.missing(config[0]!)).toEqual([]);
    one.stop();
  });

  test("looks up a name again that the active config does not use, and keeps its last answer if that fails", async () => {
    const { lookUp, questions } = asked();
    const { resolver: one, known } = resolver(lookUp);
    const first = one.learn(pools('"a.test:80"'));
    questions[0]!.answer("10.1.0.1");
    await first;
    one.follow(pools('"b.test:80"'), () => undefined);
    const again = one.learn(pools('"a.test:80"'));
    expect(questions.at(-1)!.host).toBe("a.test");
    await vi.advanceTimersByTimeAsync(LEARN_MS);
    await again;
    expect(known("a.test")).toEqual(["10.1.0.1"]);
    one.stop();
  });

  test("keeps a bounded number of such answers, the latest ones", async () => {
    const { lookUp, questions } = asked();
    const { resolver: one, known } = resolver(lookUp);
    const names = Array.from({ length: KEPT_MAX + 2 }, (_, i) => `n${i}.test`);
    const learnt = one.learn(pools(names.map((name) => `"${name}:80"`).join(", ")));
    for (const question of questions) question.answer("10.1.0.1");
    await learnt;
    one.follow(pools('"n0.test:80"'), () => undefined);
    expect(names.filter((name) => known(name).length > 0)).toEqual(["n0.test", ...names.slice(2)]);
    one.stop();
  });

  test("a name that fails is tried again at the next reload", async () => {
    const { lookUp, questions } = asked();
    const { resolver: one, known } = resolver(lookUp);
    const first = one.learn(pools('"a.test:80"'));
    questions[0]!.fail("ENOTFOUND");
    await first;
    const second = one.learn(pools('"a.test:80"'));
    questions[1]!.answer("10.1.0.1");
    await second;
    expect(known("a.test")).toEqual(["10.1.0.1"]);
  });
});

describe("follow", () => {
  test("looks up the names of each pool at the pool's interval and reports it", async () => {
    const { lookUp, questions } = asked();
    const { resolver: one, known } = resolver(lookUp);
    const told: string[] = [];
    const config = pools('"a.test:80"', '"b.test:80", "10.0.0.1:80"', '"10.0.0.2:80"');
    const learnt = one.learn(config);
    for (const question of questions.splice(0)) question.answer("10.1.0.9");
    await learnt;
    one.follow(config, (pool) => told.push(pool));
    await vi.advanceTimersByTimeAsync(9999);
    expect(questions).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(questions.map(({ host }) => host)).toEqual(["a.test"]);
    expect(told).toEqual(["p0", "p1"]);
    questions[0]!.answer("10.1.0.1");
    await turn();
    expect(told).toEqual(["p0", "p1", "p0"]);
    expect(known("a.test")).toEqual(["10.1.0.1"]);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(questions.map(({ host }) => host).sort()).toEqual(["a.test", "a.test", "b.test"]);
    one.stop();
  });

  test("a lookup that fails, or finds nothing, keeps the last answer; each change is logged once", async () => {
    const { lookUp, questions } = asked();
    const { resolver: one, said, known } = resolver(lookUp);
    const told: string[] = [];
    one.follow(pools('"a.test:80"'), (pool) => told.push(pool));
    const next = async (settle: (question: Question) => void): Promise<void> => {
      await vi.advanceTimersByTimeAsync(10_000);
      settle(questions.at(-1)!);
      await turn();
    };
    await next(({ answer }) => answer("10.1.0.1", "10.1.0.2"));
    await next(({ fail }) => fail("ESERVFAIL"));
    await next(({ fail }) => fail("ESERVFAIL"));
    await next(({ answer }) => answer());
    expect(known("a.test")).toEqual(["10.1.0.1", "10.1.0.2"]);
    expect(said).toEqual([
      { level: "warn", event: "name does not resolve", host: "a.test", error: "ESERVFAIL", addresses_kept: 2 },
    ]);
    await next(({ answer }) => answer("10.1.0.3"));
    expect(known("a.test")).toEqual(["10.1.0.3"]);
    expect(said.slice(1)).toEqual([{ level: "info", event: "name resolves again", host: "a.test" }]);
    await next(({ answer }) => answer());
    expect(said[2]).toMatchObject({ level: "warn", host: "a.test", addresses_kept: 1 });
    expect(said.length).toBe(3);
    one.stop();
  });

  test("sends no second query while one is in flight, so a slow server is not flooded", async () => {
    const { lookUp, questions } = asked();
    const { resolver: one } = resolver(lookUp);
    const quick = configOf(
      `[listeners.web]\nbind = ":8080"\npool = "p"\n[pools.p]\nbackends = ["a.test:80"]\nresolve = "1s"\n`,
    ).pools;
    one.follow(quick, () => undefined);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(questions.length).toBe(1);
    questions[0]!.answer("10.1.0.1");
    await vi.advanceTimersByTimeAsync(1000);
    expect(questions.length).toBe(2);
    one.stop();
  });

  test("a name without an address is looked up more often than its interval says", async () => {
    const { lookUp, questions } = asked();
    const { resolver: one, known } = resolver(lookUp);
    one.follow(pools('"a.test:80"'), () => undefined);
    for (let round = 1; round <= 3; round++) {
      await vi.advanceTimersByTimeAsync(RETRY_MS);
      expect(questions.length).toBe(round);
      if (round < 3) questions.at(-1)!.fail("there is no such name");
    }
    questions.at(-1)!.answer("10.1.0.1");
    await turn();
    expect(known("a.test")).toEqual(["10.1.0.1"]);
    await vi.advanceTimersByTimeAsync(RETRY_MS);
    expect(questions.length).toBe(3);
    one.stop();
  });

  test("another config ends the old intervals", async () => {
    const { lookUp, questions } = asked();
    const { resolver: one, known } = resolver(lookUp);
    const learnt = one.learn(pools('"a.test:80", "b.test:80"'));
    for (const question of questions.splice(0)) question.answer("10.1.0.1");
    await learnt;
    one.follow(pools('"a.test:80", "b.test:80"'), () => undefined);
    one.follow(pools('"b.test:80"'), () => undefined);
    expect(known("b.test")).toEqual(["10.1.0.1"]);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(questions.map(({ host }) => host)).toEqual(["b.test"]);
    one.stop();
    await vi.advanceTimersByTimeAsync(100_000);
    expect(questions.length).toBe(1);
  });
});

test("the system's resolver resolves localhost, each address once", async () => {
  vi.useRealTimers();
  const { resolver: one, known } = resolver();
  await one.learn(pools('"localhost:80"'));
  expect(known("localhost")).toContain("127.0.0.1");
  expect(new Set(known("localhost")).size).toBe(known("localhost").length);
});
