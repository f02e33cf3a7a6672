import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { parseAddress, parseCidr, type Cidr } from "../../src/core/address.ts";
import { cidrTable } from "../../src/core/cidr-set.ts";
import type { End, EndedBy } from "../../src/core/ends.ts";
import type { AccessFilter, Follower } from "../../src/messages.ts";
import { monotonicMs } from "../../src/platform/clock.ts";
import { add, claimed } from "../../src/shared/cells.ts";
import { WORKER } from "../../src/shared/counters.ts";
import { Ledger, ledgerMemory, ROW, ROW_FLOAT, ROW_FLOATS, ROW_WORDS } from "../../src/shared/ledger.ts";
import { AccessLog, FOLLOWED_CHARACTERS_MAX, LOG_PENDING_MAX } from "../../src/worker/access-log.ts";
import { arena } from "../support/plans.ts";

const NOW = Date.parse("2026-03-04T05:06:07.890Z");

let ledger: Ledger;
let counters: Float64Array;
let pending: Int32Array;
let batches: { text: string; lines: number }[];
let followed: { follower: number; text: string; lost: number }[];
let log: AccessLog;
beforeEach(() => {
  vi.useFakeTimers({ now: NOW, toFake: ["Date", "performance"] });
  ledger = new Ledger(ledgerMemory(4));
  counters = arena.float64(WORKER.size);
  pending = arena.int32(1);
  batches = [];
  const host = { words: ledger.words, floats: ledger.floats, counters, index: 3 };
  followed = [];
  log = new AccessLog(host, pending, {
    send: (text, lines) => batches.push({ text, lines }),
    sendFollowed: (follower, text, lost) => followed.push({ follower, text, lost }),
  });
  log.format = "json";
});

afterEach(() => void vi.useRealTimers());

interface Ended {
  bytesIn?: number;
  bytesOut?: number;
  end?: End;
  by?: EndedBy;
  pool?: string | null;
  backend?: string | null;
  connectMs?: number;
  error?: string;
}

/** A connection of 1.5 seconds has ended. */
function ended(given: Ended = {}): void {
  const { bytesIn = 10, bytesOut = 20, end = "eof", by = "client", pool = "app", backend = "a" } = given;
  const row = ledger.take();
  ledger.words.set(parseAddress("192.0.2.7")!, row * ROW_WORDS + ROW.address);
  ledger.words[row * ROW_WORDS + ROW.port] = 4711;
  ledger.words[row * ROW_WORDS + ROW.retries] = 1;
  ledger.floats[row * ROW_FLOATS + ROW_FLOAT.startedMs] = monotonicMs() - 1500;
  ledger.floats[row * ROW_FLOATS + ROW_FLOAT.id] = 65_537;
  ledger.floats[row * ROW_FLOATS + ROW_FLOAT.bytesIn] = bytesIn;
  ledger.floats[row * ROW_FLOATS + ROW_FLOAT.bytesOut] = bytesOut;
  const session = {
    row,
    listener: { plan: { name: "web" } },
    pool: pool === null ? null : { plan: { name: pool } },
    backend: backend === null ? null : { name: backend },
    facts: null,
    connectMs: given.connectMs ?? 0.25,
  };
  log.write(session, { end, by, error: given.error ?? "" });
  ledger.release(row);
}

const lines = (): string[] => batches.flatMap(({ text }) => text.trimEnd().split("\n"));

describe("the access log of a worker", () => {
  test("writes one line with all facts of the connection", () => {
    ended();
    log.flush();
    expect(batches).toHaveLength(1);
    expect(batches[0]!.lines).toBe(1);
    expect(batches[0]!.text.endsWith("\n")).toBe(true);
    expect(JSON.parse(batches[0]!.text)).toEqual({
      time: "2026-03-04T05:06:07.890Z",
      id: 65_537,
      listener: "web",
      client: "192.0.2.7:4711",
      pool: "app",
      backend: "a",
      connect_ms: 0.25,
      duration_ms: 1500,
      bytes_in: 10,
      bytes_out: 20,
      retries: 1,
      worker: 3,
      end: "eof",
      end_by: "client",
    });
  });

  test("has the wall-clock time after the clock was set, and an unaffected duration", () => {
    vi.setSystemTime("2026-12-24T00:00:00.000Z");
    ended();
    log.flush();
    expect(JSON.parse(batches[0]!.text)).toMatchObject({ time: "2026-12-24T00:00:00.000Z", duration_ms: 1500 });
  });

  test("leaves out missing values", () => {
    ended({ pool: null, backend: null, connectMs: -1, end: "no_route", by: "lb" });
    log.flush();
    const line = JSON.parse(batches[0]!.text) as object;
    for (const key of ["pool", "backend", "connect_ms", "error"]) expect(line).not.toHaveProperty(key);
  });

  test("sends lines in batches", () => {
    for (let i = 0; i < 50; i++) ended();
    expect(batches).toEqual([]);
    log.flush();
    expect(batches.map((batch) => batch.lines)).toEqual([50]);
    expect(lines()).toHaveLength(50);
    log.flush();
    expect(batches).toHaveLength(1);
  });

  test("does not wait for the flush when a batch is long enough", () => {
    for (let i = 0; i < 1000; i++) ended();
    expect(batches.length).toBeGreaterThan(1);
    for (const { text, lines: count } of batches) {
      expect(text.length).toBeLessThan(70_000);
      expect(text.split("\n")).toHaveLength(count + 1);
    }
    log.flush();
    expect(lines()).toHaveLength(1000);
  });

  test("counts lines that are sent and not yet written", () => {
    ended();
    log.flush();
    const sent = batches[0]!.text.length;
    expect(claimed(pending)).toBe(sent);
    add(pending, -sent);
    ended();
    log.flush();
    expect(claimed(pending)).toBe(sent);
  });

  test("drops lines and counts them when nothing is written, and holds no more than its limit", () => {
    for (let i = 0; i < 40_000; i++) ended();
    log.flush();
    const characters = batches.reduce((sum, { text }) => sum + text.length, 0);
    expect(characters).toBeLessThan(LOG_PENDING_MAX + 140_000);
    expect(characters).toBeGreaterThan(LOG_PENDING_MAX - 70_000);
    const sent = batches.reduce((sum, batch) => sum + batch.lines, 0);
    expect(counters[WORKER.logLinesLost]).toBe(40_000 - sent);
    expect(sent).toBeLessThan(40_000);
    // What was written meanwhile makes room again.
    add(pending, -characters);
    ended();
    log.flush();
    expect(batches.at(-1)!.lines).toBe(1);
    expect(counters[WORKER.logLinesLost]).toBe(40_000 - sent);
  });

  test("does not log connections without a byte, except at level debug", () => {
    const silent = { bytesIn: 0, bytesOut: 0 };
    ended({ ...silent, end: "eof", by: "client" });
    ended({ ...silent, end: "eof", by: "backend" });
    ended({ ...silent, end: "reset", by: "client" });
    log.flush();
    expect(batches).toEqual([]);
    log.debug = true;
    ended({ ...silent, end: "eof", by: "client" });
    log.flush();
    expect(lines()).toHaveLength(1);
  });

  test("logs every connection that was refused or reset, with or without a byte", () => {
    const silent = { bytesIn: 0, bytesOut: 0 };
    ended({ ...silent, end: "reset", by: "backend" });
    ended({ ...silent, end: "connect_refused", by: "backend", error: "ECONNREFUSED" });
    ended({ ...silent, end: "denied", by: "lb" });
    ended({ bytesIn: 1, bytesOut: 0, end: "reset", by: "client" });
    ended({ bytesIn: 0, bytesOut: 1, end: "eof", by: "client" });
    log.flush();
    expect(lines()).toHaveLength(5);
  });

  test("writes nothing when it is disabled", () => {
    log.format = "off";
    ended();
    log.flush();
    expect(batches).toEqual([]);
  });

  test('writes text with format = "text"', () => {
    log.format = "text";
    ended();
    log.flush();
    expect(batches[0]!.text).toMatch(/^time=2026-03-04T05:06:07\.890Z id=65537 listener=web client=192\.0\.2\.7:4711 /);
  });
});

describe("followers", () => {
  const EVERY: AccessFilter = {
    listener: null,
    pool: null,
    backends: null,
    clients: null,
    end: null,
    minDurationMs: 0,
  };
  const follower = (id: number, filter: Partial<AccessFilter> = {}, format: "json" | "text" = "json"): Follower => ({
    id,
    format,
    filter: { ...EVERY, ...filter },
  });

  test("get lines in their own format, even if the log is off", () => {
    log.format = "off";
    log.follow([follower(1), follower(2, {}, "text")]);
    ended();
    log.flush();
    expect(batches).toEqual([]);
    expect(followed).toEqual([
      { follower: 1, text: expect.stringMatching(/^\{"time":"2026-03-04T05:06:07.890Z".*\}\n$/), lost: 0 },
      {
        follower: 2,
        text: expect.stringMatching(/^time=2026-03-04T05:06:07.890Z .* end=eof end_by=client\n$/),
        lost: 0,
      },
    ]);
    followed.length = 0;
    log.flush();
    log.follow([]);
    ended();
    log.flush();
    expect(followed).toEqual([]);
  });

  test.each<[string, Partial<AccessFilter>]>([
    ["listener", { listener: "web" }],
    ["pool", { pool: "app" }],
    ["backend", { backends: ["a"] }],
    ["client", { clients: cidrTable([parseCidr("192.0.2.0/24") as Cidr]) }],
    ["end", { end: "eof" }],
    ["duration", { minDurationMs: 1500 }],
  ])("get the lines whose %s is as they want it, and no others", (_what, filter) => {
    const none: Partial<AccessFilter> = {
      listener: "other",
      pool: "other",
      backends: ["other"],
      clients: cidrTable([parseCidr("192.0.3.0/24") as Cidr]),
      end: "reset",
      minDurationMs: 1501,
    };
    const [key] = Object.keys(filter) as [keyof AccessFilter];
    log.follow([follower(1, filter), follower(2, { [key]: none[key] })]);
    ended();
    log.flush();
    expect(followed.map((one) => one.follower)).toEqual([1]);
  });

  test("lose the lines beyond a maximum per tick, and learn their number", () => {
    log.follow([follower(1)]);
    const count = FOLLOWED_CHARACTERS_MAX / 100;
    for (let i = 0; i < count; i++) ended();
    log.flush();
    const { text, lost } = followed[0]!;
    expect(lost).toBeGreaterThan(0);
    expect(text.split("\n").length - 1 + lost).toBe(Math.ceil(count));
    expect(text.length).toBeLessThan(FOLLOWED_CHARACTERS_MAX + 1000);
    ended();
    log.flush();
    expect(followed[1]).toMatchObject({ lost: 0 });
  });

  test("who stay keep the lines that wait for them when others come", () => {
    log.follow([follower(1)]);
    ended();
    log.follow([follower(1), follower(2)]);
    ended();
    log.flush();
    expect(followed.map(({ follower: id, text }) => [id, text.split("\n").length - 1])).toEqual([
      [1, 2],
      [2, 1],
    ]);
  });
});
