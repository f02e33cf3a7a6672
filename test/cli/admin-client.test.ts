import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { AdminClient } from "../../src/cli/admin-client.ts";
import { askLb } from "../../src/cli/admin-command.ts";
import { adminEndpoint, type AdminOptions } from "../../src/cli/admin-endpoint.ts";

let folder: string;
const servers: Server[] = [];

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "lb-client-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));
afterEach(() => {
  vi.restoreAllMocks();
  for (const server of servers.splice(0)) server.close().closeAllConnections();
});

/** Answers requests on a free port; returns the address. */
async function serve(answer: RequestListener): Promise<string> {
  const server = createServer(answer);
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

function clientFor(options: AdminOptions, env = {}): AdminClient {
  const endpoint = adminEndpoint(options, env);
  if ("error" in endpoint) throw new Error(endpoint.error);
  return new AdminClient(endpoint);
}

describe("the token", () => {
  const token = (options: AdminOptions, env = {}): unknown => {
    const endpoint = adminEndpoint(options, env);
    return "error" in endpoint ? endpoint : endpoint.token;
  };

  test("is that of --token-file, else of the environment, else of the config", () => {
    const tokenFile = file("given.token", "given\n");
    file("config.token", "  from-config \n");
    const config = file("lb.toml", '[admin]\ntoken_file = "config.token"\n');
    expect(token({ config, tokenFile }, { LB_ADMIN_TOKEN: "env" })).toBe("given");
    expect(token({ config }, { LB_ADMIN_TOKEN: "env" })).toBe("env");
    expect(token({ config }, { LB_ADMIN_TOKEN: "" })).toBe("from-config");
    expect(token({ admin: "127.0.0.1:1" })).toBeNull();
  });

  test("of a config whose token may not be read is unknown, for another may be given", () => {
    const config = file("lb.toml", '[admin]\ntoken_file = "missing.token"\n');
    expect(token({ config })).toBeNull();
  });

  test("file that is given must hold one", () => {
    expect(token({ tokenFile: join(folder, "none") })).toEqual({
      error: expect.stringMatching(/none cannot be read \(ENOENT\)/),
    });
    expect(token({ tokenFile: file("empty.token", "\n") })).toEqual({
      error: expect.stringMatching(/empty\.token contains no token/),
    });
  });
});

test("an address beside a config gets the token of that config", () => {
  file("beside.token", "from-config");
  const config = file("beside.toml", '[admin]\nbind = "127.0.0.1:1"\ntoken_file = "beside.token"\n');
  expect(adminEndpoint({ config, admin: "127.0.0.1:2" }, {})).toMatchObject({
    endpoint: { port: 2 },
    token: "from-config",
    tls: null,
  });
  expect(adminEndpoint({ config: join(folder, "none.toml"), admin: "127.0.0.1:2" }, {})).toMatchObject({
    endpoint: { port: 2 },
    token: null,
  });
});

describe("a request", () => {
  test("carries the token, the header against cross-site requests, the query and the body", async () => {
    const seen: { request: IncomingMessage; body: string }[] = [];
    const admin = await serve((request, response) => {
      let body = "";
      request.on("data", (chunk) => (body += String(chunk)));
      request.on("end", () => {
        seen.push({ request, body });
        response.end('{"ok":true}');
      });
    });
    const client = clientFor({ admin, tokenFile: file("t", "secret") });
    const asked = { method: "PATCH", path: "/api/x", query: { a: "1 2", b: undefined }, body: { weight: 3 } } as const;
    expect(await client.json(asked)).toEqual({ ok: true });
    const { request, body } = seen[0]!;
    expect([request.method, request.url, body]).toEqual(["PATCH", "/api/x?a=1+2", '{"weight":3}']);
    expect(request.headers).toMatchObject({
      authorization: "Bearer secret",
      "x-lb-admin": "1",
      "content-type": "application/json",
      host: "localhost",
    });
  });

  const failure = async (answer: RequestListener): Promise<unknown> => {
    const client = clientFor({ admin: await serve(answer) });
    return client.json({ method: "GET", path: "/api/x", timeoutMs: 300 }).catch((error: unknown) => error);
  };

  test("that is refused fails with lb's reason and cure", async () => {
    const problem = JSON.stringify({ detail: "there is no pool x", cure: "the pools are a and b" });
    expect(await failure((_, response) => response.writeHead(404).end(problem))).toMatchObject({
      message: "there is no pool x",
      cure: "the pools are a and b",
    });
  });

  test("without the required token says how to give one", async () => {
    expect(await failure((_, response) => response.writeHead(401).end())).toMatchObject({
      message: expect.stringMatching(/needs a token$/),
      cure: expect.stringMatching(/--token-file/),
    });
  });

  test.each<[string, RequestListener, RegExp]>([
    ["that is not JSON", (_, response) => response.end("<html>"), /is not JSON/],
    ["with a status and no reason", (_, response) => response.writeHead(500).end("?"), /answered with status 500/],
    ["that never comes", () => undefined, /did not answer within 0.3 s/],
    [
      "that is cut off before it begins",
      (request) => request.socket.destroy(),
      /closed the connection without an answer/,
    ],
  ])("with an answer %s fails", async (_, answer, message) => {
    expect(await failure(answer)).toMatchObject({ message: expect.stringMatching(message) });
  });
});

test("lines come as they are sent, wherever the chunks are cut", async () => {
  const admin = await serve((_, response) => {
    response.write("one\ntw");
    response.write("o\n");
    response.end("rest");
  });
  const lines: string[] = [];
  for await (const line of clientFor({ admin }).lines({ method: "GET", path: "/" })) lines.push(line);
  expect(lines).toEqual(["one", "two"]);
});

describe("a command", () => {
  const run = async (options: AdminOptions): Promise<{ code: number; said: string }> => {
    let said = "";
    vi.spyOn(console, "error").mockImplementation((text: string) => void (said += text));
    const code = await askLb(options, async (client) => {
      await client.json({ method: "GET", path: "/" });
    });
    return { code, said };
  };

  test("exits with 1 if lb cannot be reached, and says what to do", async () => {
    const admin = await serve(() => undefined);
    servers.pop()!.close();
    expect(await run({ admin })).toEqual({
      code: 1,
      said: expect.stringMatching(
        /cannot be reached \(ECONNREFUSED\)\n +is lb running\? Give its address with --admin/,
      ),
    });
  });

  test("exits with 2 for invalid options", async () => {
    expect(await run({ admin: "nonsense" })).toEqual({ code: 2, said: expect.stringMatching(/^lb: nonsense: /) });
    expect(await run({ config: join(folder, "missing.toml") })).toMatchObject({ code: 2 });
  });
});
