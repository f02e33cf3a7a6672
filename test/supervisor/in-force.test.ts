// The config in force: what follows from it changes with it in one step, and goes back in one step.
import { describe, expect, test } from "vitest";
import { InForce } from "../../src/supervisor/in-force.ts";
import { Registry } from "../../src/supervisor/registry.ts";
import { ListeningSockets } from "../../src/supervisor/sockets.ts";
import { configOf } from "../support/config.ts";
import { recordingLog } from "../support/recording-log.ts";

const toml = (backend: string, more = ""): string => `
  workers = 2
  ${more}
  [listeners.web]
  bind = "127.0.0.1:8080"
  pool = "app"
  [pools.app]
  backends = ["${backend}"]
`;
const OLD = configOf(toml("127.0.0.1:1", "max_connections = 100"));
const NEW = configOf(toml("127.0.0.1:2", 'max_connections = 50\nlog.level = "debug"'));

function start() {
  const registry = new Registry();
  const { log, said } = recordingLog();
  const inForce = new InForce(OLD, { registry, sockets: new ListeningSockets(), addresses: () => [], log });
  inForce.put(OLD);
  return { inForce, registry, said };
}

describe("the config in force", () => {
  test("makes plans of its generation, with the records of the registry", () => {
    const { inForce, registry } = start();
    const plan = inForce.planFor(0);
    expect(plan).toMatchObject({ generation: 1, maxConnections: 100, accessLog: "text", debug: false });
    expect(plan.listeners.map(({ id }) => id)).toEqual(registry.listeners.map(({ id }) => id));
    expect(plan.pools[0]!.backends.map(({ address }) => address)).toEqual(["127.0.0.1:1"]);
  });

  test("gives way to another, of the next generation; what kept its name keeps its identity", () => {
    const { inForce } = start();
    const before = inForce.planFor(0);
    inForce.put(NEW);
    const after = inForce.planFor(0);
    expect(inForce.config).toBe(NEW);
    expect(after).toMatchObject({ generation: 2, maxConnections: 50, debug: true });
    expect(after.pools[0]!.backends.map(({ address }) => address)).toEqual(["127.0.0.1:2"]);
    expect(after.listeners[0]!.id).toBe(before.listeners[0]!.id);
    expect(after.pools[0]!.id).toBe(before.pools[0]!.id);
  });

  test("comes back as it was when the other is taken back, with pools newer than both", () => {
    const { inForce } = start();
    const before = inForce.planFor(0);
    const takeBack = inForce.put(NEW);
    const between = inForce.planFor(0);
    takeBack();
    const after = inForce.planFor(0);
    expect([inForce.config, inForce.generation, inForce.maxConnections]).toEqual([OLD, 1, 100]);
    expect(after.pools[0]!.backends.map(({ id }) => id)).toEqual(before.pools[0]!.backends.map(({ id }) => id));
    expect(after.pools[0]!.version).toBeGreaterThan(between.pools[0]!.version);
  });

  test("has no more connections than the open files allow, and says so", () => {
    const { inForce, said } = start();
    expect(said).toEqual([]);
    inForce.put(configOf(toml("127.0.0.1:1", "max_connections = 10_000_000")));
    expect(inForce.maxConnections).toBeLessThan(10_000_000);
    expect(said).toEqual([{ level: "warn", event: "max_connections", reason: expect.any(String) }]);
  });
});
