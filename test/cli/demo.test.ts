import { existsSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { demo, inShell } from "../../src/cli/demo.ts";
import { loadConfig } from "../../src/config/load.ts";
import type { Config } from "../../src/config/schema.ts";
import { eventually } from "../support/eventually.ts";

let out: string[] = [];
const servers: Server[] = [];

beforeEach(() => {
  out = [];
  vi.spyOn(console, "log").mockImplementation((text: string) => void out.push(text));
});

afterEach(() => {
  vi.restoreAllMocks();
  for (const server of servers.splice(0)) server.close();
});

function configOf(file: string): Config {
  const result = loadConfig(file, {});
  if (!result.ok) throw new Error(JSON.stringify(result.problems));
  expect(result.warnings).toEqual([]);
  return result.config;
}

function portOf(endpoint: object): number {
  return "port" in endpoint ? Number(endpoint.port) : 0;
}

/** Listens on a port of 127.0.0.1, or does nothing if the port is in use. */
function listen(port: number): Promise<void> {
  return new Promise((resolve) => {
    const server = createServer((socket) => socket.on("error", () => {}).end());
    servers.push(server);
    server.once("error", () => resolve());
    server.listen(port, "127.0.0.1", () => resolve());
  });
}

const text = async (port: number, init?: RequestInit) =>
  (await fetch(`http://127.0.0.1:${port}/`, { ...init, keepalive: false })).text();

test("runs lb with a valid config over three backends that answer with their names", async () => {
  let seen = "";
  const code = await demo(async (file) => {
    seen = file;
    const { listeners, pools, admin } = configOf(file);
    expect(listeners.map(({ name, pool }) => ({ name, pool }))).toEqual([{ name: "demo", pool: "demo" }]);
    expect(admin).toMatchObject({ enabled: true, token: null });
    expect(pools[0]).toMatchObject({ name: "demo", balance: "round_robin", health: { type: "tcp", interval: 1000 } });
    const { backends } = pools[0]!;
    expect(backends.map(({ name }) => name)).toEqual(["A", "B", "C"]);
    for (const [i, { endpoint, name }] of backends.entries()) {
      const port = portOf(endpoint);
      for (let n = 1; n <= i + 1; n++) {
        expect(await text(port)).toBe(`Hello from backend ${name} (port ${port}), request ${n}\n`);
      }
    }
    return 7;
  });
  expect(code).toBe(7);
  expect(existsSync(seen)).toBe(false);
});

test("prints suggestions as soon as the admin endpoint listens", async () => {
  await demo(async (file) => {
    const { listeners, admin } = configOf(file);
    expect(out).toEqual([]);
    await listen(portOf(admin.bind));
    const printed = await eventually("the lines", () => out[0]);
    expect(printed).toContain(`curl http://127.0.0.1:${portOf(listeners[0]!.bind[0]!)}\n`);
    expect(printed).toContain(`http://127.0.0.1:${portOf(admin.bind)}/metrics`);
    expect(printed).toContain(file);
    expect(printed).toContain("Ctrl-C");
    expect(printed).not.toContain("\u001b");
    return 0;
  });
});

test("uses the next free ports if its own are in use", async () => {
  for (const port of [8080, 8081, 9900]) await listen(port);
  await demo((file) => {
    const { listeners, admin } = configOf(file);
    expect(portOf(listeners[0]!.bind[0]!)).toBeGreaterThan(8081);
    expect(portOf(admin.bind)).toBeGreaterThan(9900);
    return Promise.resolve(0);
  });
});

test("stops a backend for a while on request", async () => {
  await demo(async (file) => {
    const port = portOf(configOf(file).pools[0]!.backends[1]!.endpoint);
    const stopped = await fetch(`http://127.0.0.1:${port}/stop`, { method: "POST" });
    expect(await stopped.text()).toBe("Backend B stops for 15 s\n");
    await eventually("a refusal", () =>
      text(port).then(
        () => false,
        () => true,
      ),
    );
    return 0;
  });
});

test("prints nothing and cleans up when lb ends at once", async () => {
  let seen = "";
  const code = await demo((file) => {
    seen = file;
    return Promise.resolve(2);
  });
  expect(code).toBe(2);
  expect(out).toEqual([]);
  expect(existsSync(seen)).toBe(false);
});

test.each([
  ["dist/lb", "dist/lb"],
  ["/opt/load balancer/lb", "'/opt/load balancer/lb'"],
  ["/opt/it's/lb", `'/opt/it'\\''s/lb'`],
])("%s is a word of a shell's command", (path, word) => {
  expect(inShell(path)).toBe(word);
  expect(Bun.spawnSync(["sh", "-c", `printf %s ${word}`]).stdout.toString()).toBe(path);
});
