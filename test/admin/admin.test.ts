import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { BindEndpoint } from "../../src/config/kinds.ts";
import { parseEndpoint } from "../../src/core/address.ts";
import type { Snapshot } from "../../src/observe/snapshot.ts";
import { startAdmin, type Admin, type AdminOptions, type AuditEntry } from "../../src/admin/admin.ts";
import { failure, readinessOf, type Result } from "../../src/admin/operations.ts";
import { eventually } from "../support/eventually.ts";
import { filledSnapshot } from "../support/snapshot.ts";

const TOKEN = "s3cret-Token/+=";
const READ_TOKEN = "s3cret-reader";

let folder: string;
let snapshot: Snapshot;
let reload: () => Promise<Result<string>>;
let restarted: number[];
let changes: unknown[] = [];
let failures: unknown[];
let audited: AuditEntry[];
const admins: Admin[] = [];

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "lb-admin-"));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

beforeEach(() => {
  snapshot = filledSnapshot();
  reload = () => Promise.resolve({ ok: true, value: "generation 4 is in force" });
  restarted = [];
  changes = [];
  failures = [];
  audited = [];
  cancelled = [];
});

afterEach(() => {
  for (const admin of admins.splice(0)) admin.stop();
});

function endpoint(text: string): BindEndpoint {
  return parseEndpoint(text) as BindEndpoint;
}

let cancelled: string[];

/** A worker that never ends. */
function streamOf(name: string): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start: (controller) => controller.enqueue(Buffer.from(`${name}\n`)),
    cancel: () => void cancelled.push(name),
  });
}

function options(bind: string, token: string | null): AdminOptions {
  return {
    bind: endpoint(bind),
    tokens: { full: token, read: token === null ? null : READ_TOKEN },
    tls: null,
    audit: (entry) => audited.push(entry),
    operations: {
      dashboard: () => ({ page: "<!doctype html>", script: "0", style: "" }),
      history: () => ({ points: [] }),
      status: () => snapshot,
      config: () => ({ workers: 2 }),
      readiness: (listener) => readinessOf(snapshot, listener),
      reload: () => reload(),
      restartWorker: (index) => {
        if (index > 1) return failure("no_such_worker", `there is no worker ${index}`, "see /api/status");
        restarted.push(index);
        return { ok: true, value: "restarted", change: { before: "running", after: "starting" } };
      },
      events: () => streamOf("events"),
      accessLines: () => ({ ok: true, value: streamOf("lines") }),
      connections: () => ({ ok: true, value: { total: 0, connections: [] } }),
      endConnections: async () => ({ ok: true, value: 0 }),
      explain: () => failure("no_such_listener", "there is none", "see /api/status"),
      clients: () => ({ ok: true, value: { total: 0, period_ms: 0, clients: [] } }),
      endConnection: async () => ({ ok: true, value: 0 }),
      setBackend: async (pool, backend, change) => {
        changes.push({ pool, backend, change });
        return { ok: true, value: "changed" };
      },
      addBackend: async (pool, backend) => {
        changes.push({ pool, backend });
        return { ok: true, value: "added" };
      },
      removeBackend: async (pool, backend) => {
        changes.push({ pool, backend });
        return { ok: true, value: "removed" };
      },
      setListener: async (listener, state) => {
        changes.push({ listener, state });
        return { ok: true, value: "changed" };
      },
    },
    connectionsMax: 16,
    failed: (error) => failures.push(error),
  };
}

async function started(bind = "127.0.0.1:0", token: string | null = null): Promise<Admin> {
  const admin = await startAdmin(options(bind, token));
  if ("error" in admin) throw new Error(admin.error);
  admins.push(admin);
  return admin;
}

async function refusedStart(bind: string): Promise<string> {
  const admin = await startAdmin(options(bind, null));
  if ("error" in admin) return admin.error;
  admins.push(admin);
  return "";
}

interface Answer {
  status: number;
  headers: Map<string, string>;
  body: string;
}

/** Sends exactly these headers; `host` null omits Host, with HTTP/1.0. */
async function ask(
  admin: Admin,
  line: string,
  { host = "localhost", headers = {} as Record<string, string>, body = "" as string, to = admin.address } = {} as {
    host?: string | null;
    headers?: Record<string, string>;
    body?: string;
    to?: string;
  },
): Promise<Answer> {
  const where = endpoint(to);
  const socket =
    where.kind === "unix"
      ? connect({ path: where.path })
      : where.kind === "abstract"
        ? connect({ path: `\0${where.name}` })
        : connect({ host: to.startsWith("[") ? "::1" : "127.0.0.1", port: where.port });
  const all = { ...(host !== null && { Host: host }), Connection: "close", ...headers };
  const head = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(`${line} HTTP/1.${host === null ? 0 : 1}\r\n${head.join("")}\r\n${body}`);
  let text = "";
  for await (const chunk of socket) {
    text += String(chunk);
    // Bun keeps some connections open despite Connection: close.
    const length = /\r\ncontent-length: (\d+)\r\n/i.exec(text)?.[1];
    const start = text.indexOf("\r\n\r\n") + 4;
    if (start > 3 && (line.startsWith("HEAD") || (length !== undefined && text.length - start >= Number(length))))
      break;
  }
  socket.destroy();
  const [headText = "", ...rest] = text.split("\r\n\r\n");
  const [statusLine = "", ...headerLines] = headText.split("\r\n");
  const pairs = headerLines.map((header) => {
    const colon = header.indexOf(":");
    return [header.slice(0, colon).toLowerCase(), header.slice(colon + 1).trim()] as const;
  });
  return { status: Number(statusLine.split(" ")[1]), headers: new Map(pairs), body: rest.join("\r\n\r\n") };
}

/** The body of an answer that is a problem (RFC 9457). */
function problemOf(answer: { headers: Map<string, string>; body: string }): unknown {
  expect(answer.headers.get("content-type")).toBe("application/problem+json");
  return JSON.parse(answer.body);
}

describe("the admin endpoint", () => {
  test("is alive while it can answer, whether ready or not", async () => {
    snapshot.ready = false;
    expect(await ask(await started(), "GET /live")).toMatchObject({ status: 200, body: "ok\n" });
  });

  test("is ready when the snapshot is, and otherwise says why not", async () => {
    const admin = await started();
    expect(await ask(admin, "GET /ready")).toMatchObject({ status: 200, body: "ready\n" });
    snapshot.ready = false;
    snapshot.not_ready = ["no backend of the pool app is up", "shutting down"];
    expect(await ask(admin, "GET /ready")).toMatchObject({
      status: 503,
      body: "not ready\nno backend of the pool app is up\nshutting down\n",
    });
  });

  test("reports for each listener whether it is ready, and the pools without a backend that is up", async () => {
    const admin = await started();
    const [web] = snapshot.listeners;
    expect(await ask(admin, "GET /ready/web")).toMatchObject({ status: 200, body: "ready\n" });
    expect(await ask(admin, "GET /ready/w%65b")).toMatchObject({ status: 200, body: "ready\n" });
    web!.not_ready = ["pool api has no backend up"];
    expect(await ask(admin, "GET /ready/web")).toMatchObject({
      status: 200,
      body: "ready\npool api has no backend up\n",
    });
    web!.ready = false;
    expect(await ask(admin, "GET /ready/web")).toMatchObject({
      status: 503,
      body: "not ready\npool api has no backend up\n",
    });
    web!.ready = true;
    snapshot.ready = false;
    snapshot.not_ready = ["the process is stopping"];
    expect(await ask(admin, "GET /ready/web")).toMatchObject({
      status: 503,
      body: "not ready\nthe process is stopping\npool api has no backend up\n",
    });
    expect((await ask(admin, "GET /ready/none")).status).toBe(404);
    expect((await ask(admin, "GET /ready/%zz")).status).toBe(404);
  });

  test("returns the metrics in Prometheus' format, with its content type", async () => {
    const answer = await ask(await started(), "GET /metrics");
    expect(answer.status).toBe(200);
    expect(answer.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
    expect(answer.body).toContain('lb_build_info{version="1.2.3"} 1\n');
  });

  test("returns the snapshot as JSON", async () => {
    const answer = await ask(await started(), "GET /api/status?pretty");
    expect(answer.headers.get("content-type")).toBe("application/json; charset=utf-8");
    expect(JSON.parse(answer.body)).toEqual(snapshot);
  });

  test("answers HEAD like GET, without content", async () => {
    const admin = await started();
    for (const path of ["/live", "/ready", "/metrics", "/api/status"]) {
      const get = await ask(admin, `GET ${path}`);
      const head = await ask(admin, `HEAD ${path}`);
      expect(head).toMatchObject({ status: 200, body: "" });
      expect(head.headers.get("content-type")).toBe(get.headers.get("content-type"));
      expect(head.headers.get("content-length")).toBe(String(Buffer.byteLength(get.body)));
    }
  });

  test("refuses other methods and names the allowed ones", async () => {
    const admin = await started();
    const headers = { "X-Lb-Admin": "1" };
    for (const [line, allow] of [
      ["POST /live", "GET, HEAD"],
      ["DELETE /metrics", "GET, HEAD"],
      ["OPTIONS /api/status", "GET, HEAD"],
      ["GET /api/reload", "POST"],
      ["HEAD /api/workers/0/restart", "POST"],
    ] as const) {
      const answer = await ask(admin, line, { headers });
      expect([line, answer.status, answer.headers.get("allow")]).toEqual([line, 405, allow]);
    }
    expect(restarted).toEqual([]);
  });

  test("answers other paths with 404", async () => {
    const admin = await started();
    for (const path of ["/live/", "/LIVE", "//live", "/metrics2", "/api", "/api/workers//restart", "/%6cive"]) {
      expect([path, (await ask(admin, `GET ${path}`)).status]).toEqual([path, 404]);
    }
  });

  test("serves the dashboard's files to everyone, and lets them load nothing from other origins", async () => {
    const admin = await started("127.0.0.1:0", "secret");
    for (const [path, type, text] of [
      ["/", "text/html", "<!doctype html>"],
      ["/dashboard.js", "text/javascript", "0"],
      ["/dashboard.css", "text/css", ""],
    ] as const) {
      const response = await ask(admin, `GET ${path}`);
      expect([response.status, response.headers.get("content-type"), response.body]).toEqual([
        200,
        `${type}; charset=utf-8`,
        text,
      ]);
      const policy = response.headers.get("content-security-policy");
      expect(policy).toMatch(/^default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';/);
      expect(policy).not.toMatch(/unsafe|\*|http/);
    }
  });

  test("prevents browsers from sniffing, framing and storing every answer", async () => {
    const admin = await started();
    for (const path of ["/live", "/metrics", "/api/status", "/nothing"]) {
      const { headers } = await ask(admin, `GET ${path}`);
      expect(headers.get("x-content-type-options")).toBe("nosniff");
      expect(headers.get("cache-control")).toBe("no-store");
      expect(headers.get("content-security-policy")).toContain("default-src 'none'");
      expect(headers.get("access-control-allow-origin")).toBeUndefined();
    }
  });

  test("reloads, and returns the result", async () => {
    const admin = await started();
    const order = { headers: { "X-Lb-Admin": "1" } };
    const good = await ask(admin, "POST /api/reload", order);
    expect([good.status, JSON.parse(good.body)]).toEqual([200, { ok: true, message: "generation 4 is in force" }]);
    reload = () => Promise.resolve(failure("reload_failed", "lb.toml:3:1: no", "correct it"));
    const bad = await ask(admin, "POST /api/reload", order);
    expect(problemOf(bad)).toEqual({
      type: "about:blank",
      title: "Unprocessable Content",
      status: 422,
      detail: "lb.toml:3:1: no",
      error: "reload_failed",
      cure: "correct it",
      ok: false,
      message: "lb.toml:3:1: no",
    });
  });

  test("ends only the named worker", async () => {
    const admin = await started();
    const order = { headers: { "X-Lb-Admin": "1" } };
    expect((await ask(admin, "POST /api/workers/1/restart", order)).status).toBe(200);
    for (const worker of ["7", "x", "-1", "12345"])
      expect((await ask(admin, `POST /api/workers/${worker}/restart`, order)).status).toBe(404);
    expect(restarted).toEqual([1]);
  });

  test.each([null, "text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-8"])(
    "takes a body of JSON with the Content-Type %s",
    async (type) => {
      const admin = await started();
      const body = '{"state": "drain"}';
      const headers = {
        "X-Lb-Admin": "1",
        "Content-Length": String(body.length),
        ...(type && { "Content-Type": type }),
      };
      const { status } = await ask(admin, "PATCH /api/listeners/web", { headers, body });
      expect({ status, changes }).toMatchObject({ status: 200, changes: [{ listener: "web", state: "drain" }] });
    },
  );

  test("changes the named backend and listener as the body says", async () => {
    const admin = await started();
    const order = (given?: unknown) => {
      const body = given === undefined ? "" : JSON.stringify(given);
      const length = { "Content-Type": "application/json", "Content-Length": String(body.length) };
      return { headers: { "X-Lb-Admin": "1", ...(body !== "" && length) }, body };
    };
    const statuses = [
      await ask(
        admin,
        "PATCH /api/pools/app/backends/db.test%3A80%4010.0.0.1%3A80",
        order({ state: "drain", timeout: "30s" }),
      ),
      await ask(admin, "PATCH /api/pools/app/backends/unix%3A%2Frun%2Fapp.sock", order({ weight: null })),
      await ask(admin, "POST /api/pools/app/backends", order({ address: "10.0.0.7:80", weight: 5 })),
      await ask(admin, "DELETE /api/pools/app/backends/big", order()),
      await ask(admin, "PATCH /api/listeners/web", order({ state: "ready" })),
      await ask(admin, "PATCH /api/listeners/web", order({ state: "maintenance" })),
      await ask(admin, "POST /api/pools/app/backends", order({ address: "10.0.0.7:80", wieght: 5 })),
    ].map(({ status }) => status);
    expect(statuses).toEqual([200, 200, 200, 200, 200, 400, 400]);
    expect(changes).toMatchObject([
      { pool: "app", backend: "db.test:80@10.0.0.1:80", change: { state: "drain", timeoutMs: 30_000 } },
      { pool: "app", backend: "unix:/run/app.sock", change: { weight: null } },
      { pool: "app", backend: { name: null, weight: 5, max_connections: 0, backup: false } },
      { pool: "app", backend: "big" },
      { listener: "web", state: "ready" },
    ]);
  });

  test("reports an invalid request as application/problem+json", async () => {
    const admin = await started();
    const problems: Record<string, object> = {
      "GET /nothing": { status: 404, title: "Not Found" },
      "GET /ready/none": {
        status: 404,
        detail: 'there is no listener "none"',
        error: "no_such_listener",
        cure: expect.stringMatching(/^the listeners are \w+/),
      },
      "POST /live": { status: 405, detail: "only GET, HEAD is allowed here" },
      "POST /api/reload": { status: 403, detail: "the header X-Lb-Admin: 1 is required" },
    };
    for (const [line, problem] of Object.entries(problems))
      expect(problemOf(await ask(admin, line))).toMatchObject(problem);
    const order = { headers: { "X-Lb-Admin": "1" } };
    expect(problemOf(await ask(admin, "POST /api/workers/7/restart", order))).toMatchObject({
      status: 404,
      detail: "there is no worker 7",
    });
    const guarded = await started("127.0.0.1:0", TOKEN);
    expect(problemOf(await ask(guarded, "GET /metrics"))).toMatchObject({ status: 401, title: "Unauthorized" });
  });

  test("writes internal errors only to the log", async () => {
    const admin = await started();
    reload = () => Promise.reject(new Error(`secret ${TOKEN}`));
    const answer = await ask(admin, "POST /api/reload", { headers: { "X-Lb-Admin": "1" } });
    expect(problemOf(answer)).toEqual({
      type: "about:blank",
      title: "Internal Server Error",
      status: 500,
      detail: "internal error, see the log",
    });
    expect(answer.body).not.toContain(TOKEN);
    expect(answer.headers.get("cache-control")).toBe("no-store");
    expect(failures).toEqual([expect.objectContaining({ message: `secret ${TOKEN}` })]);
    snapshot = null as unknown as Snapshot;
    expect((await ask(admin, "GET /metrics")).status).toBe(500);
    expect((await ask(admin, "GET /live")).status).toBe(200);
  });

  test("refuses a large body", async () => {
    const admin = await started();
    const large = "x".repeat(100_000);
    const announced = { "X-Lb-Admin": "1", "Content-Length": "100000" };
    const answer = await ask(admin, "POST /api/reload", { headers: announced, body: large });
    expect(problemOf(answer)).toMatchObject({ status: 413, detail: "the body is larger than 65536 bytes" });
  });

  test("stops answering at stop, and its port is free at once", async () => {
    const admin = await started();
    expect((await ask(admin, "GET /live")).status).toBe(200);
    admin.stop();
    await expect(ask(admin, "GET /live")).rejects.toThrow();
    expect(await refusedStart(admin.address)).toBe("");
  });
});

describe("without a token", () => {
  test.each([
    ["127.0.0.1", 200],
    ["127.0.0.1:9900", 200],
    ["localhost", 200],
    ["LOCALHOST:1", 200],
    ["[::1]:9900", 200],
    ["10.1.2.3:9900", 200],
    ["evil.example", 403],
    ["evil.example:9900", 403],
    ["127.0.0.1.evil.example", 403],
    ["localhost.evil.example", 403],
    ["user@127.0.0.1", 403],
    ["127.0.0.1, evil.example", 403],
    ["[::1].evil.example", 403],
  ])("a request with Host %s is answered with %i", async (host, status) => {
    expect((await ask(await started(), "GET /api/status", { host })).status).toBe(status);
  });

  test("a request without Host is answered, because no browser sends one", async () => {
    expect((await ask(await started(), "GET /metrics", { host: null })).status).toBe(200);
  });

  test("probes are answered whatever the Host", async () => {
    const admin = await started();
    for (const path of ["/live", "/ready", "/ready/web"]) {
      expect((await ask(admin, `GET ${path}`, { host: "lb.internal:9900" })).status).toBe(200);
    }
  });

  test("a change needs a header that no form can send", async () => {
    const admin = await started();
    let reloads = 0;
    reload = () => Promise.resolve({ ok: true, value: String(++reloads) });
    const form = { "Content-Type": "application/x-www-form-urlencoded", Origin: "http://evil.example" };
    expect((await ask(admin, "POST /api/reload", { headers: form })).status).toBe(403);
    expect((await ask(admin, "POST /api/reload", { headers: { "X-Lb-Admin": "0" } })).status).toBe(403);
    const foreign = { host: "evil.example", headers: { "X-Lb-Admin": "1" } };
    expect((await ask(admin, "POST /api/reload", foreign)).status).toBe(403);
    expect(reloads).toBe(0);
    expect((await ask(admin, "POST /api/reload", { headers: { "X-Lb-Admin": "1" } })).status).toBe(200);
  });
});

describe("with a token", () => {
  const PATHS = ["GET /metrics", "GET /api/status", "POST /api/reload", "POST /api/workers/0/restart", "GET /nothing"];

  test("requests without it are refused, except probes", async () => {
    const admin = await started("127.0.0.1:0", TOKEN);
    for (const given of [null, "", "Bearer", "Bearer ", "Bearer wrong", `Basic ${TOKEN}`, `Bearer ${TOKEN}x`, TOKEN]) {
      const headers = { "X-Lb-Admin": "1", ...(given !== null && { Authorization: given }) };
      for (const line of PATHS) {
        const answer = await ask(admin, line, { headers });
        expect([line, given, answer.status]).toEqual([line, given, 401]);
        expect(answer.headers.get("www-authenticate")).toBe('Bearer realm="lb"');
        expect(answer.body).not.toContain(TOKEN);
      }
    }
    expect((await ask(admin, "GET /live")).status).toBe(200);
    expect((await ask(admin, "GET /ready")).status).toBe(200);
    expect(restarted).toEqual([]);
  });

  test("requests with it are answered, whatever the Host", async () => {
    const admin = await started("127.0.0.1:0", TOKEN);
    for (const scheme of ["Bearer", "bearer"]) {
      const asked = { host: "lb.example:9900", headers: { Authorization: `${scheme} ${TOKEN}` } };
      const statuses = [];
      for (const line of PATHS) statuses.push((await ask(admin, line, asked)).status);
      expect(statuses).toEqual([200, 200, 200, 200, 404]);
    }
  });

  test("a new token is required as soon as it is set", async () => {
    const admin = await started("127.0.0.1:0", TOKEN);
    admin.configure({ tokens: { full: "another", read: "yet-another" }, tls: null });
    expect((await ask(admin, "GET /metrics", { headers: { Authorization: `Bearer ${TOKEN}` } })).status).toBe(401);
    expect((await ask(admin, "GET /metrics", { headers: { Authorization: "Bearer another" } })).status).toBe(200);
  });
});

describe("with the token for reading", () => {
  const reader = { host: "lb.example", headers: { Authorization: `Bearer ${READ_TOKEN}`, "X-Lb-Admin": "1" } };

  test("reads are answered, and changes are refused with the cure", async () => {
    const admin = await started("127.0.0.1:0", TOKEN);
    for (const line of ["GET /metrics", "GET /api/status", "HEAD /api/status", "GET /api/openapi.json"])
      expect([line, (await ask(admin, line, reader)).status]).toEqual([line, 200]);
    for (const line of [
      "POST /api/reload",
      "POST /api/workers/0/restart",
      "POST /api/status",
      "POST /api/explain",
      "DELETE /nothing",
    ]) {
      const answer = await ask(admin, line, reader);
      expect(problemOf(answer)).toMatchObject({
        status: 403,
        detail: "this token allows GET only",
        cure: "send the token of admin.token_file for everything but GET",
      });
    }
    expect([restarted, audited]).toEqual([[], []]);
  });

  test("a new read token is required as soon as it is set", async () => {
    const admin = await started("127.0.0.1:0", TOKEN);
    admin.configure({ tokens: { full: TOKEN, read: null }, tls: null });
    expect((await ask(admin, "GET /metrics", reader)).status).toBe(401);
    expect((await ask(admin, "GET /metrics", { headers: { Authorization: "Bearer " } })).status).toBe(401);
  });
});

describe("a request from a page", () => {
  const SAME = { Origin: "http://127.0.0.1:9900", "Sec-Fetch-Site": "same-origin" };
  const OTHER = { Origin: "http://evil.example", "Sec-Fetch-Site": "cross-site" };

  test.each([
    ["of lb's own", SAME, 200],
    ["of lb's own, by its origin alone", { Origin: "http://127.0.0.1:9900" }, 200],
    ["that the user opens", { "Sec-Fetch-Site": "none" }, 200],
    ["of another origin", OTHER, 403],
    ["of another port of this host", { "Sec-Fetch-Site": "same-site", Origin: "http://127.0.0.1:8080" }, 403],
    ["of another port of this host, by a link", { "Sec-Fetch-Site": "same-site" }, 403],
    ["of another origin, by its origin alone", { Origin: "http://127.0.0.1:8080" }, 403],
    ["without an origin", { Origin: "null" }, 403],
  ])("%s gets the expected answer, with and without a token", async (_what, headers, status) => {
    const host = "127.0.0.1:9900";
    const open = await started();
    const guarded = await started("127.0.0.1:0", TOKEN);
    for (const line of ["POST /api/workers/0/restart", "GET /api/status"]) {
      const plain = await ask(open, line, { host, headers: { ...headers, "X-Lb-Admin": "1" } });
      const withToken = await ask(guarded, line, { host, headers: { ...headers, Authorization: `Bearer ${TOKEN}` } });
      expect([line, plain.status, withToken.status]).toEqual([line, status, status]);
    }
    expect(restarted.length).toBe(status === 200 ? 2 : 0);
  });
});

describe("streams", () => {
  const open = async (admin: Admin, path: string) => {
    const socket = connect({ host: "127.0.0.1", port: Number(admin.address.split(":")[1]) });
    socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
    const [head] = await once(socket, "data");
    return { socket, head: String(head) };
  };

  test("take at most half of the connections, and further ones get 503 with the cure", async () => {
    const admin = await started();
    const streams = [];
    for (let i = 0; i < 8; i++) streams.push(await open(admin, i % 2 === 0 ? "/api/events" : "/api/logs"));
    expect(streams[0]!.head).toMatch(/^HTTP\/1\.1 200 [^]*content-type: text\/event-stream/i);
    expect(problemOf(await ask(admin, "GET /api/events"))).toMatchObject({
      status: 503,
      detail: "the maximum number of streams is open",
    });
    for (let i = 0; i < 20; i++) expect((await ask(admin, "GET /api/status")).status).toBe(200);
    streams[0]!.socket.destroy();
    await eventually("a place", () => cancelled.length === 1);
    const { socket, head } = await open(admin, "/api/logs?format=text&end=eof&min_duration=1s&client=10.0.0.0/8");
    expect(head).toMatch(/^HTTP\/1\.1 200 /);
    for (const one of [...streams.map((stream) => stream.socket), socket]) one.destroy();
    await eventually("the ends", () => cancelled.length === 9);
  });

  test("end when the endpoint stops", async () => {
    const admin = await started();
    const { socket } = await open(admin, "/api/events");
    const ended = once(socket, "end");
    admin.stop();
    await ended;
    expect(cancelled).toEqual(["events"]);
  });

  test("with unknown filters are refused", async () => {
    const admin = await started();
    for (const [query, detail] of [
      ["/api/logs?format=xml", 'query.format: expected one of "json", "text", found "xml"'],
      ["/api/logs?clinet=10.0.0.1", "query.clinet: there is no such option"],
      ["/api/events?snapshots=2", 'query.snapshots: expected true or false, found "2" (a string)'],
    ])
      expect(problemOf(await ask(admin, `GET ${query}`))).toMatchObject({ status: 400, detail });
  });
});

test("each change leaves an audit entry with who, what, before and after; reads and refused requests leave none", async () => {
  const admin = await started("127.0.0.1:0", TOKEN);
  const headers = { Authorization: `Bearer ${TOKEN}` };
  await ask(admin, "POST /api/workers/1/restart", { headers });
  await ask(admin, "POST /api/workers/7/restart", { headers });
  await ask(admin, "GET /api/status", { headers });
  await ask(admin, "POST /api/workers/1/restart");
  await ask(admin, "POST /api/workers/x/restart", { headers });
  const by = { client: "127.0.0.1", credential: "token" };
  expect(audited).toEqual([
    {
      ...by,
      request: "POST /api/workers/1/restart",
      outcome: "done",
      change: { before: "running", after: "starting" },
    },
    { ...by, request: "POST /api/workers/7/restart", outcome: "no_such_worker", change: null },
  ]);
});

describe("a bind", () => {
  test("to TCP port 0 reports the real port in its address", async () => {
    expect((await started("127.0.0.1:0")).address).toMatch(/^127\.0\.0\.1:[1-9]\d+$/);
    expect((await started(":0")).address).toMatch(/^:[1-9]\d+$/);
  });

  test("to all addresses answers over IPv4 and, if available, over IPv6", async () => {
    const admin = await started(":0");
    expect((await ask(admin, "GET /live")).status).toBe(200);
    if (!existsSync("/proc/net/if_inet6") || readFileSync("/proc/net/if_inet6", "utf8") === "") return;
    expect((await ask(admin, "GET /live", { to: `[::1]${admin.address}` })).status).toBe(200);
  });

  test("to an address in use says so, and how to find the process that uses it", async () => {
    const { address } = await started();
    const port = address.split(":")[1];
    expect(await refusedStart(address)).toBe(
      `the admin endpoint cannot listen on ${address}: the address is in use, perhaps by another lb: ` +
        `stop that one, or change admin.bind; to see who has it: ss -ltnp 'sport = :${port}'`,
    );
  });

  test("to an address that the machine does not have says so", async () => {
    expect(await refusedStart("203.0.113.1:9900")).toMatch(/203\.0\.113\.1:9900: this machine has no such address/);
  });

  test("to a unix socket makes a file for this user only, and removes it at stop", async () => {
    const path = join(folder, "admin.sock");
    const admin = await started(`unix:${path}`);
    expect(admin.address).toBe(`unix:${path}`);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect((await ask(admin, "GET /metrics", { host: "any.name" })).status).toBe(200);
    admin.stop();
    await eventually("the file's end", () => !existsSync(path));
  });

  test("to a unix socket gives other users access at no moment, and does not change the umask", async () => {
    const path = join(folder, "umask.sock");
    // Only the main thread of a process can set a umask, so the test uses a process of its own, in which chmod does not work.
    const source = `
      import { mock } from "bun:test";
      const fs = await import("node:fs");
      mock.module("node:fs", () => ({ ...fs, chmodSync: () => {} }));
      process.umask(0o002);
      const { startAdmin } = await import(${JSON.stringify(join(import.meta.dirname, "../../src/admin/admin.ts"))});
      const admin = await startAdmin({ bind: { kind: "unix", path: ${JSON.stringify(path)} }, tokens: { full: null, read: null }, tls: null, connectionsMax: 4 });
      console.log((fs.statSync(${JSON.stringify(path)}).mode & 0o777).toString(8), process.umask().toString(8));
      admin.stop();`;
    const child = Bun.spawnSync([process.execPath, "-e", source]);
    expect(child.stderr.toString()).toBe("");
    expect(child.stdout.toString()).toBe("600 2\n");
  });

  test("to the file of a dead process replaces the file", async () => {
    const path = join(folder, "stale.sock");
    const source = `Bun.listen({ unix: ${JSON.stringify(path)}, socket: { data() {} } }); process.kill(process.pid, 9)`;
    Bun.spawnSync([process.execPath, "-e", source]);
    expect(existsSync(path)).toBe(true);
    expect((await ask(await started(`unix:${path}`), "GET /live")).status).toBe(200);
  });

  test("to the file of a listening process does not touch it", async () => {
    const path = join(folder, "live.sock");
    const server = createServer((socket) => socket.on("error", () => {}).end("still here"));
    await new Promise<void>((resolve) => server.listen(path, resolve));
    expect(await refusedStart(`unix:${path}`)).toMatch(/live\.sock: the address is in use/);
    const text = await new Promise((resolve) => connect({ path }).once("data", (data) => resolve(String(data))));
    expect(text).toBe("still here");
    server.close();
  });

  test("to a file that is not a socket does not touch it", async () => {
    const path = join(folder, "precious");
    writeFileSync(path, "data");
    expect(await refusedStart(`unix:${path}`)).toMatch(/precious: a file that is not a socket has this path/);
    expect(readFileSync(path, "utf8")).toBe("data");
  });

  test("to a path without a folder says so", async () => {
    expect(await refusedStart(`unix:${join(folder, "nowhere", "a.sock")}`)).toMatch(/a\.sock: there is no such folder/);
  });

  test("to an abstract name answers there", async () => {
    const admin = await started(`unix:@lb-admin-test-${process.pid}`);
    expect((await ask(admin, "GET /live")).status).toBe(200);
    expect(await refusedStart(admin.address)).toMatch(/the address is in use/);
  });
});
