import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { health } from "../../src/cli/health.ts";

let folder: string;
const servers: Server[] = [];
let asked: string[] = [];
let out: string[] = [];
let err: string[] = [];

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "lb-health-"));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

beforeEach(() => {
  asked = [];
  out = [];
  err = [];
  vi.spyOn(console, "log").mockImplementation((text: string) => void out.push(text));
  vi.spyOn(console, "error").mockImplementation((text: string) => void err.push(text));
});

afterEach(() => {
  vi.restoreAllMocks();
  for (const server of servers.splice(0)) server.close();
});

/** Answers every request with exactly `answer`; null never answers. Returns its port. */
async function serve(answer: string | null, where: object = { host: "127.0.0.1", port: 0 }) {
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.on("data", (data) => {
      asked.push(String(data).split("\r\n")[0]!);
      if (answer !== null) socket.end(answer);
    });
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(where, resolve));
  return (server.address() as AddressInfo).port;
}

const OK = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";

function config(text: string): string {
  const file = join(folder, "lb.toml");
  writeFileSync(file, text);
  return file;
}

test("reports that lb is alive, at the admin address of the config", async () => {
  const port = await serve(OK);
  expect(await health(config(`[admin]\nbind = "127.0.0.1:${port}"`))).toBe(0);
  expect(out).toEqual([`lb health: alive (127.0.0.1:${port})`]);
  expect(err).toEqual([]);
  expect(asked).toEqual(["GET /live HTTP/1.1"]);
});

test.each(["0.0.0.0:PORT", ":PORT"])("connects to the loopback interface if bind is %s", async (bind) => {
  const port = await serve(OK);
  expect(await health(config(`[admin]\nbind = "${bind.replace("PORT", String(port))}"`))).toBe(0);
  expect(out).toEqual([`lb health: alive (127.0.0.1:${port})`]);
});

test("connects to a unix socket by a path relative to the config", async () => {
  await serve(OK, { path: join(folder, "admin.sock") });
  expect(await health(config(`[admin]\nbind = "unix:admin.sock"`))).toBe(0);
  expect(out).toEqual([`lb health: alive (unix:${join(folder, "admin.sock")})`]);
});

test("connects to an abstract unix socket", async () => {
  await serve(OK, { path: `\0lb-health-${process.pid}` });
  expect(await health(config(`[admin]\nbind = "unix:@lb-health-${process.pid}"`))).toBe(0);
});

test("replaces environment variables", async () => {
  const port = await serve(OK);
  vi.stubEnv("LB_TEST_PORT", String(port));
  const file = config('[admin]\nbind = "127.0.0.1:${LB_TEST_PORT}"');
  expect(await health(file)).toBe(0);
  vi.unstubAllEnvs();
  expect(await health(file)).toBe(1);
  expect(err).toEqual([expect.stringContaining("the environment variable LB_TEST_PORT is not set")]);
});

test("takes a URL, an address or a unix socket instead of a config", async () => {
  const port = await serve(OK);
  expect(await health(`http://127.0.0.1:${port}`)).toBe(0);
  expect(await health(`http://localhost:${port}/ready`)).toBe(0);
  expect(await health(`127.0.0.1:${port}`)).toBe(0);
  expect(asked).toEqual(["GET /live HTTP/1.1", "GET /ready HTTP/1.1", "GET /live HTTP/1.1"]);
});

test("does not use the proxy of the environment", async () => {
  vi.stubEnv("http_proxy", "http://127.0.0.1:1");
  vi.stubEnv("HTTP_PROXY", "http://127.0.0.1:1");
  const port = await serve(OK);
  expect(await health(`http://127.0.0.1:${port}`)).toBe(0);
  vi.unstubAllEnvs();
});

test("ignores problems elsewhere in the config", async () => {
  const port = await serve(OK);
  expect(await health(config(`[admin]\nbind = "127.0.0.1:${port}"\n[listeners.web]\nbind = 5`))).toBe(0);
});

test("fails with the status when it is not 200", async () => {
  const port = await serve("HTTP/1.1 503 Service Unavailable\r\n\r\n");
  expect(await health(`http://127.0.0.1:${port}`)).toBe(1);
  expect(err).toEqual([`lb health: 127.0.0.1:${port} answered with status 503`]);
  expect(out).toEqual([]);
});

test.each([
  ["SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"],
  ["", "closed the connection without an answer"],
])("fails when %j answers", async (answer, why) => {
  const port = await serve(answer);
  expect(await health(`127.0.0.1:${port}`)).toBe(1);
  expect(err).toEqual([`lb health: 127.0.0.1:${port} ${why}`]);
});

test("names the listeners when there is none of the name that was asked for", async () => {
  const body = '{"status": 404, "detail": "there is no listener \\"nope\\"", "cure": "the listeners are web, b"}';
  const port = await serve(`HTTP/1.1 404 Not Found\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
  expect(await health(`127.0.0.1:${port}`, "nope")).toBe(1);
  const why = 'answered with status 404: there is no listener "nope", the listeners are web, b';
  expect(err).toEqual([`lb health: 127.0.0.1:${port} ${why}`]);
});

test("fails when nobody listens", async () => {
  const port = await serve(OK);
  servers.pop()!.close();
  expect(await health(`127.0.0.1:${port}`)).toBe(1);
  expect(err).toEqual([`lb health: 127.0.0.1:${port} cannot be reached (ECONNREFUSED)`]);
});

test("gives up after two seconds without an answer", async () => {
  const port = await serve(null);
  const before = performance.now();
  expect(await health(`127.0.0.1:${port}`)).toBe(1);
  expect(err).toEqual([`lb health: 127.0.0.1:${port} did not answer within 2 s`]);
  expect(performance.now() - before).toBeGreaterThan(1900);
});

test("fails with one line if there is no admin endpoint", async () => {
  expect(await health(config("[admin]\nenabled = false"))).toBe(1);
  expect(await health(join(folder, "missing.toml"))).toBe(1);
  expect(await health("ftp://127.0.0.1:9900")).toBe(1);
  expect(err).toEqual([
    expect.stringMatching(/has the admin endpoint switched off/),
    expect.stringMatching(/missing\.toml cannot be read \(ENOENT\)/),
    expect.stringMatching(/only http:\/\/ and https:\/\/ can be asked/),
  ]);
});

test("checks with --ready whether lb accepts connections, or whether a listener has a backend that is up", async () => {
  const port = await serve(OK);
  const file = config(`[admin]\nbind = "127.0.0.1:${port}"`);
  expect(await health(file, true)).toBe(0);
  expect(await health(`http://127.0.0.1:${port}`, "web")).toBe(0);
  expect(asked).toEqual(["GET /ready HTTP/1.1", "GET /ready/web HTTP/1.1"]);
  expect(out).toEqual([`lb health: ready (127.0.0.1:${port})`, `lb health: ready (127.0.0.1:${port})`]);
});

test("says why lb is not ready", async () => {
  const port = await serve("HTTP/1.1 503 Service Unavailable\r\n\r\nnot ready\npool app has no backend that is up\n");
  expect(await health(`127.0.0.1:${port}`, "web")).toBe(1);
  expect(err).toEqual([
    `lb health: 127.0.0.1:${port} answered with status 503: not ready; pool app has no backend that is up`,
  ]);
});
