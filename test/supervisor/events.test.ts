import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Events, SUBSCRIBER_BYTES_MAX } from "../../src/supervisor/events.ts";
import { Log } from "../../src/supervisor/log.ts";

let taken: number;
let size: number;
let events: Events;

beforeEach(() => {
  vi.useFakeTimers();
  taken = 0;
  size = 0;
  events = new Events(() => ({ taken: ++taken, filling: "x".repeat(size) }));
});

afterEach(() => void vi.useRealTimers());

/** The events that a subscriber reads. */
function reading(stream: ReadableStream<Uint8Array>) {
  const reader = stream.getReader();
  return {
    reader,
    next: async (): Promise<string> => {
      const { done, value } = await reader.read();
      return done ? "end" : String(Buffer.from(value));
    },
  };
}

describe("events", () => {
  test("begin with a snapshot, and have another each second", async () => {
    const { next } = reading(events.subscribe({ snapshots: true, recent: false }));
    expect(await next()).toBe("retry: 2000\n\n");
    expect(await next()).toBe('event: snapshot\ndata: {"taken":1,"filling":""}\n\n');
    vi.advanceTimersByTime(2000);
    expect(await next()).toContain('"taken":2');
    expect(await next()).toContain('"taken":3');
  });

  test("have each message of the log at once, whatever the log level, except debug messages", async () => {
    const log = new Log({ level: "error", fd: -1 });
    log.onMessage = (level, event, fields) => events.message(level, event, fields);
    const { next } = reading(events.subscribe({ snapshots: false, recent: false }));
    log.debug("detail");
    log.warn("backend down", { pool: "app", backend: "a", reason: "line\nbreak" });
    expect(await next()).toBe("retry: 2000\n\n");
    const text = await next();
    expect(text).toMatch(/^event: change\ndata: \{[^\n]*\}\n\n$/);
    expect(JSON.parse(text.split("data: ")[1]!)).toMatchObject({
      level: "warn",
      event: "backend down",
      pool: "app",
      backend: "a",
      reason: "line\nbreak",
    });
  });

  test("begin with the last hundred messages if the subscriber wants them", async () => {
    for (let i = 0; i < 105; i++) events.message("info", "change", { i });
    const { next } = reading(events.subscribe({ snapshots: false, recent: true }));
    expect(await next()).toBe("retry: 2000\n\n");
    for (let i = 5; i < 105; i++) expect(await next()).toContain(`"i":${i}}`);
    events.message("info", "change", { i: "new" });
    expect(await next()).toContain('"i":"new"');
  });

  test("share one snapshot among all subscribers, and take none without subscribers", async () => {
    vi.advanceTimersByTime(5000);
    expect(taken).toBe(0);
    const readers = [1, 2, 3].map(() => reading(events.subscribe({ snapshots: true, recent: false })));
    expect(taken).toBe(3);
    vi.advanceTimersByTime(1000);
    expect(taken).toBe(4);
    for (const { reader } of readers) await reader.cancel();
    vi.advanceTimersByTime(5000);
    expect(taken).toBe(4);
    expect(vi.getTimerCount()).toBe(0);
  });

  test("without snapshots have a comment at intervals", async () => {
    const { next } = reading(events.subscribe({ snapshots: false, recent: false }));
    vi.advanceTimersByTime(15_000);
    expect([await next(), await next()]).toEqual(["retry: 2000\n\n", ": alive\n\n"]);
    expect(taken).toBe(0);
  });

  test("end for a subscriber that does not read, and continue for the others", async () => {
    size = SUBSCRIBER_BYTES_MAX / 4;
    const slow = reading(events.subscribe({ snapshots: true, recent: false }));
    const quick = reading(events.subscribe({ snapshots: true, recent: false }));
    await quick.next();
    await quick.next();
    for (let i = 0; i < 10; i++) {
      vi.advanceTimersByTime(1000);
      expect(await quick.next()).toContain("event: snapshot");
    }
    await expect(slow.next()).rejects.toThrow("reads too slowly");
    await quick.reader.cancel();
    expect(vi.getTimerCount()).toBe(0);
  });

  test("may have a snapshot that is larger than the maximum of unread bytes", async () => {
    size = 2 * SUBSCRIBER_BYTES_MAX;
    const { next } = reading(events.subscribe({ snapshots: false, recent: false }));
    await next();
    const large = reading(events.subscribe({ snapshots: true, recent: false }));
    await large.next();
    expect(await large.next()).toContain("event: snapshot");
    vi.advanceTimersByTime(1000);
    expect((await large.next()).length).toBeGreaterThan(size);
  });
});
