import { describe, expect, test } from "vitest";
import type { AccessFilter, Follower } from "../../src/messages.ts";
import type { AccessLine } from "../../src/observe/access-line.ts";
import { FOLLOWER_BYTES_MAX, Followers } from "../../src/supervisor/followers.ts";

const EVERY: AccessFilter = { listener: null, pool: null, backends: null, clients: null, end: null, minDurationMs: 0 };

function made() {
  const said: Follower[][] = [];
  return { said, followers: new Followers((list) => said.push(list)) };
}

async function read(reader: { read(): Promise<{ value?: Uint8Array | undefined }> }): Promise<string> {
  return String(Buffer.from((await reader.read()).value ?? []));
}

describe("followers of the access log", () => {
  test("are reported to the workers when they come and go", async () => {
    const { said, followers } = made();
    const stream = followers.follow("json", { ...EVERY, pool: "app" });
    const follower = { id: 1, format: "json", filter: { ...EVERY, pool: "app" } };
    expect([said, followers.list()]).toEqual([[[follower]], [follower]]);
    await stream.cancel();
    expect([said, followers.list()]).toEqual([[[follower], []], []]);
    followers.take(1, "a line that was under way\n", 0);
  });

  test("each get their own text", async () => {
    const { followers } = made();
    const [a, b] = [followers.follow("json", EVERY).getReader(), followers.follow("text", EVERY).getReader()];
    followers.take(2, "for b\n", 0);
    followers.take(1, "for a\n", 0);
    expect([await read(a), await read(b)]).toEqual(["for a\n", "for b\n"]);
  });

  test("learn how many lines were dropped, by their worker or because they do not read", async () => {
    for (const [format, told] of [
      ["json", (lost: number) => `{"lines_lost":${lost}}\n`],
      ["text", (lost: number) => `lines_lost=${lost}\n`],
    ] as const) {
      const { followers } = made();
      const reader = followers.follow(format, EVERY).getReader();
      followers.take(1, "first\n", 3);
      followers.take(1, "second\n", 0);
      expect(await read(reader)).toBe("first\n");
      expect(await read(reader)).toBe(`${told(3)}second\n`);
      followers.take(1, `${"x".repeat(FOLLOWER_BYTES_MAX)}\n`, 0);
      followers.take(1, "lost\nlost\n", 0);
      await read(reader);
      followers.take(1, "third\n", 0);
      expect(await read(reader)).toBe(`${told(2)}third\n`);
    }
  });

  test("get the lines of connections that died with their worker, if they match the filter", async () => {
    const { followers } = made();
    const line = { listener: "web", pool: "app", backend: "a", end: "worker_lost", durationMs: 5, client: "unix" };
    const others = followers.follow("text", { ...EVERY, pool: "other" });
    const reader = followers.follow("text", { ...EVERY, end: "worker_lost" }).getReader();
    followers.line({ ...FULL, ...line } as AccessLine);
    expect(await read(reader)).toContain(" end=worker_lost ");
    await others.cancel();
  });
});

const FULL: AccessLine = {
  timeMs: 0,
  id: 1,
  listener: "",
  client: "",
  peer: "",
  pool: "",
  backend: "",
  sni: "",
  tls: "",
  clientCert: "",
  connectMs: 0,
  queueMs: 0,
  dryRun: "",
  durationMs: 0,
  bytesIn: 0,
  bytesOut: 0,
  retries: 0,
  worker: 0,
  end: "eof",
  endBy: "client",
  error: "",
};
