// The routes of the admin endpoint accept every request of the commands and the dashboard.
import { readdirSync, readFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { findRoute, inputOf } from "../../src/admin/input.ts";
import { ROUTES } from "../../src/admin/routes.ts";
import { commandLine } from "../../src/cli/command-line.ts";
import { FIRST_STATE, press, type Key } from "../../src/cli/top/state.ts";
import { NO_DATA } from "../../src/cli/top/views.ts";
import { pairOf } from "../../src/observe/figures.ts";
import { CLIENT, CONNECTION } from "../support/live-lists.ts";
import { filledSnapshot } from "../support/snapshot.ts";

let server: Server;
let admin: string;
let asked: { route: string; refusal: string | null }[] = [];

/** The route and input of a request. */
function judge(method: string, target: string, body: Uint8Array): { route: string; refusal: string | null } {
  const [path = "", query = ""] = target.split("?");
  const found = findRoute(ROUTES, method, path);
  if (!("route" in found)) return { route: `${method} ${path}`, refusal: found.detail };
  const given = inputOf(found, { query, body });
  const refusal = "is" in given ? null : `${given.detail} ${JSON.stringify(given.errors ?? [])}`;
  return { route: `${found.route.method} ${found.route.path}`, refusal };
}

/** An answer that suits every command. */
const ANSWER = JSON.stringify({
  ...filledSnapshot(),
  message: "done",
  ended: 1,
  total: 1,
  clients: [],
  limits: [],
  candidates: [],
  outcome: "passes",
});

beforeAll(async () => {
  server = createServer((request, response) => {
    const chunks: Uint8Array[] = [];
    request.on("data", (chunk: Uint8Array) => chunks.push(chunk));
    request.on("end", () => {
      asked.push(judge(request.method ?? "", request.url ?? "", Buffer.concat(chunks)));
      const { connections: _, ...rest } = JSON.parse(ANSWER) as Record<string, unknown>;
      const isList = request.url?.startsWith("/api/connections") === true;
      response.end(isList ? JSON.stringify({ ...rest, connections: [] }) : ANSWER);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  admin = `127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => void server.close());
beforeEach(() => {
  asked = [];
  vi.spyOn(console, "log").mockImplementation(() => undefined);
  vi.spyOn(process.stdout, "write").mockImplementation((_text, _encoding, written) => {
    written?.();
    return true;
  });
});

const program = { version: "1.2.3", run: () => Promise.resolve(9) };

test.each([
  ["status", "GET /api/status"],
  ["status --diff --json", "GET /api/status"],
  ["reload", "POST /api/reload"],
  ["drain app/10.0.0.1:80 --timeout 30s", "PATCH /api/pools/{pool}/backends/{backend}"],
  ["ready app/b%1", "PATCH /api/pools/{pool}/backends/{backend}"],
  ["maintenance app/a/b", "PATCH /api/pools/{pool}/backends/{backend}"],
  ["weight app/b1 0", "PATCH /api/pools/{pool}/backends/{backend}"],
  ["weight app/b1 file", "PATCH /api/pools/{pool}/backends/{backend}"],
  [
    "connections --client 192.0.2.0/24 --listener web --pool app --backend b1 --sort -age_ms --limit 5",
    "GET /api/connections",
  ],
  ["connections --client 192.0.2.1 --kill --yes", "DELETE /api/connections"],
  ["clients --sort refusals --limit 5", "GET /api/clients"],
  ["explain --listener web --client 192.0.2.1 --sni a.example --alpn h2 http/1.1", "POST /api/explain"],
  ["logs -f --client ::1 --listener web --pool app --backend b1 --end eof --min-duration 10s", "GET /api/logs"],
  ["config", "GET /api/config"],
  ["health --ready web", "GET /ready/{listener}"],
])("lb %s asks %s", async (line, route) => {
  expect(await commandLine([...line.split(" "), "--admin", admin], program)).toBe(0);
  expect(asked).toEqual([{ route, refusal: null }]);
});

test("lb top uses only existing routes, for requests and for changes", () => {
  const data = {
    ...NO_DATA,
    pair: pairOf(filledSnapshot(), null),
    connections: { total: 1, connections: [CONNECTION] },
    clients: [{ ...CLIENT, client: "192.0.2.0/24" }],
  };
  const requests = ["3dy", "3my", "3w7\r", "3w\r", "5xy", "4xy"].map((keys) => {
    let state = FIRST_STATE;
    for (const char of `${keys}y`) {
      const key: Key = char === "\r" ? { name: "enter" } : { char };
      const outcome = press(state, key, data, 10);
      if (outcome.request !== undefined) return outcome.request;
      state = outcome.state;
    }
    throw new Error(`${keys} asks nothing`);
  });
  const verdicts = requests.map(({ method, path, query = {}, body }) => {
    const search = new URLSearchParams();
    for (const [key, value] of Object.entries(query)) search.set(key, String(value));
    return judge(method, `${path}?${search}`, Buffer.from(body === undefined ? "" : JSON.stringify(body)));
  });
  const [backend, connections] = ["PATCH /api/pools/{pool}/backends/{backend}", "DELETE /api/connections"];
  expect(verdicts).toEqual(
    [backend, backend, backend, backend, `${connections}/{id}`, connections].map((route) => ({ route, refusal: null })),
  );
});

test("every path in the sources of the commands and of the dashboard is one of a route", () => {
  const src = join(import.meta.dirname, "../../src");
  const files = ["cli", "cli/top", "dashboard"].flatMap((folder) =>
    readdirSync(join(src, folder))
      .filter((name) => /\.tsx?$/.test(name))
      .map((name) => join(src, folder, name)),
  );
  const found = files.flatMap((file) =>
    [...readFileSync(file, "utf8").matchAll(/["`](\/(?:api|ready|live)\b[^"`?]*)/g)].map(([, path]) => path!),
  );
  expect(found.length).toBeGreaterThan(15);
  const known = ROUTES.map(({ path }) => path.replace(/\{\w+\}/g, "*"));
  // A value in a path is one segment.
  const paths = found.map((path) => path.replace(/\$\{[^}]*\}/g, "*"));
  expect(paths.filter((path) => !known.includes(path))).toEqual([]);
});
