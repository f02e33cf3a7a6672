// The active config: what is derived from it changes with it in one step, and is restored in one step.
import { describe, expect, test } from "vitest";
import { ActiveConfig } from "../../src/supervisor/active-config.ts";
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
  const active = new ActiveConfig(OLD, { registry, sockets: new ListeningSockets(), addresses: () => [], log });
  active.put(OLD);
  return { active, registry, said };
}

describe("the active config", () => {
  test("makes plans of its generation, with the records of the registry", () => {
    const { active, registry } = start();
    const plan = active.planFor(0);
    expect(plan).toMatchObject({ generation: 1, maxConnections: 100, accessLog: "text", debug: false });
    expect(plan.listeners.map(({ id }) => id)).toEqual(registry.listeners.map(({ id }) => id));
    expect(plan.pools[0]!.backends.map(({ address }) => address)).toEqual(["127.0.0.1:1"]);
  });

  test("is replaced by another of the next generation; entries that keep their name keep their identity", () => {
    const { active } = start();
    const before = active.planFor(0);
    active.put(NEW);
    const after = active.planFor(0);
    expect(active.config).toBe(NEW);
    expect(after).toMatchObject({ generation: 2, maxConnections: 50, debug: true });
    expect(after.pools[0]!.backends.map(({ address }) => address)).toEqual(["127.0.0.1:2"]);
    expect(after.listeners[0]!.id).toBe(before.listeners[0]!.id);
    expect(after.pools[0]!.id).toBe(before.pools[0]!.id);
  });

  test("is restored when the other is undone, with pools newer than both", () => {
    const { active } = start();
    const before = active.planFor(0);
    const takeBack = active.put(NEW);
    const between = active.planFor(0);
    takeBack();
    const after = active.planFor(0);
    expect([active.config, active.generation, active.maxConnections]).toEqual([OLD, 1, 100]);
    expect(after.pools[0]!.backends.map(({ id }) => id)).toEqual(before.pools[0]!.backends.map(({ id }) => id));
    expect(after.pools[0]!.version).toBeGreaterThan(between.pools[0]!.version);
  });

  test("lowers max_connections to what the open-files limit allows, and logs that", () => {
    const { active, said } = start();
    expect(said).toEqual([]);
    active.put(configOf(toml("127.0.0.1:1", "max_connections = 10_000_000")));
    expect(active.maxConnections).toBeLessThan(10_000_000);
    expect(said).toEqual([{ level: "warn", event: "max_connections is lowered", reason: expect.any(String) }]);
  });
});
