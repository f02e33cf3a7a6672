// What an operator's names mean, and the audit line of a change. test/e2e/runtime-changes.test.ts shows that changes take effect.
import { describe, expect, test } from "vitest";
import { parseAddress } from "../../src/core/address.ts";
import { BackendStates } from "../../src/supervisor/backend-states.ts";
import { orderOf } from "../../src/supervisor/pool-tiers.ts";
import { Registry } from "../../src/supervisor/registry.ts";
import { RuntimeOperations } from "../../src/supervisor/runtime-operations.ts";
import { configOf } from "../support/config.ts";
import { recordingLog } from "../support/recording-log.ts";

const CONFIG = configOf(`
  [listeners.web]
  bind = ":8080"
  pool = "app"
  [pools.app]
  backends = [{ address = "app.test:80", name = "app", weight = 2 }, { address = "10.0.0.9:80", name = "nine" }]
`);

function start() {
  const registry = new Registry();
  const load = (): void => {
    const config = registry.changes.appliedTo(CONFIG);
    const addresses = ["10.0.0.1", "10.0.0.2"].map((text) => parseAddress(text)!);
    registry.commit(registry.draft(config, 1000, () => addresses));
  };
  load();
  const { log } = recordingLog();
  const none = () => undefined;
  let followed = 0;
  const states = new BackendStates({ registry, log, facts: () => null, send: none, endConnections: none });
  let failsWith: string | null = null;
  let caughtUp = { promise: Promise.resolve() };
  const operations = new RuntimeOperations({
    file: "/etc/lb/lb.toml",
    registry,
    states,
    followHealth: () => followed++,
    workersCatchUp: () => caughtUp.promise,
    reloads: {
      change: async (change) => {
        const revert = change();
        if (failsWith !== null) revert?.();
        else load();
        return failsWith;
      },
    },
  });
  const stateOf = (address: string): string => {
    const [pool] = registry.pools;
    return orderOf(
      pool!,
      pool!.backends.find((one) => one.address === address)!,
    ).state;
  };
  return {
    registry,
    operations,
    followed: () => followed,
    /** The workers are behind until the returned function is called. */
    delayWorkers: () => {
      const { promise, resolve } = Promise.withResolvers<void>();
      caughtUp = { promise };
      return resolve;
    },
    fail: (reason: string) => (failsWith = reason),
    all: () => ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.9:80"].map(stateOf).join(" "),
  };
}

describe("the name of a backend", () => {
  test("means all its addresses, and with an address that one", async () => {
    const { operations, all, followed } = start();
    const drained = await operations.setBackend("app", "app", { state: "drain" });
    expect([all(), followed()]).toEqual(["drain drain ready", 1]);
    const before = ["app@10.0.0.1:80", "app@10.0.0.2:80"];
    expect(drained).toMatchObject({
      ok: true,
      change: {
        before: before.map(() => ({ state: "ready", weight: 2 })),
        after: before.map(() => ({ state: "drain", weight: 2 })),
      },
    });
    expect(await operations.setBackend("app", "app@10.0.0.2:80", { state: "ready" })).toMatchObject({
      change: { before: { state: "drain", weight: 2 }, after: { state: "ready", weight: 2 } },
    });
    expect(all()).toBe("drain ready ready");
    await operations.setBackend("app", "app", { state: "ready" });
    expect(all()).toBe("ready ready ready");
  });

  test("may be the one in the status, or that of an endpoint with its only address", async () => {
    const { operations, registry, all } = start();
    const shown = registry.pools[0]!.backends[1]!.name;
    expect((await operations.setBackend("app", shown, { state: "maintenance" })).ok).toBe(true);
    expect((await operations.setBackend("app", "nine@10.0.0.9", { state: "drain" })).ok).toBe(true);
    expect(all()).toBe("ready maintenance drain");
    expect((await operations.setBackend("app", "nine", { state: "ready" })).ok).toBe(true);
    expect(all()).toBe("ready maintenance ready");
  });

  test("that does not exist is refused with the existing names", async () => {
    const { operations } = start();
    expect(await operations.setBackend("app", "app@10.0.0.3:80", { state: "drain" })).toMatchObject({
      error: { name: "no_such_backend" },
    });
    expect(await operations.setBackend("none", "app", { state: "drain" })).toMatchObject({
      error: { name: "no_such_pool", cure: "the pools are app" },
    });
  });
});

test("a change of a backend is answered once the workers have it", async () => {
  const { operations, all, delayWorkers } = start();
  const catchUp = delayWorkers();
  let answered = false;
  const answer = operations.setBackend("app", "nine", { state: "drain" }).then((result) => ((answered = true), result));
  await new Promise((resolve) => setTimeout(resolve, 0));
  expect([all(), answered]).toEqual(["ready ready drain", false]);
  catchUp();
  expect((await answer).ok).toBe(true);
});

describe("added and removed backends", () => {
  test("have the address as their default name, and paths are relative to the config file", async () => {
    const { operations, registry } = start();
    const given = { weight: 1, max_connections: 0, backup: false, name: null };
    const added = await operations.addBackend("app", { address: { kind: "unix", path: "run/app.sock" }, ...given });
    expect(added).toMatchObject({
      change: { before: null, after: { address: "unix:/etc/lb/run/app.sock", name: "unix:run/app.sock", weight: 1 } },
    });
    expect(registry.pools[0]!.backends.at(-1)!.address).toBe("unix:/etc/lb/run/app.sock");
  });

  test("are named as a whole: one of its addresses can only be drained", async () => {
    const { operations, registry } = start();
    expect(await operations.removeBackend("app", "app@10.0.0.1:80")).toMatchObject({
      error: { name: "bad_change", cure: expect.stringContaining("drain") },
    });
    expect(await operations.removeBackend("app", "app")).toMatchObject({ ok: true, change: { after: null } });
    expect(registry.pools[0]!.backends.map(({ name }) => name)).toEqual(["nine"]);
  });

  test("do not change if the change fails, and the reason is returned", async () => {
    const { operations, registry, fail } = start();
    fail("worker 1 says no");
    expect(await operations.removeBackend("app", "nine")).toMatchObject({
      error: { name: "change_failed", detail: "worker 1 says no" },
    });
    expect(await operations.setListener("web", "drain")).toMatchObject({ error: { name: "change_failed" } });
    expect(registry.changes.toJSON()).toEqual({ listeners: [], pools: [] });
  });
});

test("a listener takes the given state; the same state again changes nothing", async () => {
  const { operations, registry, fail } = start();
  expect(await operations.setListener("web", "drain")).toMatchObject({
    change: { before: { state: "ready" }, after: { state: "drain" } },
  });
  expect(registry.changes.isDrained("web")).toBe(true);
  fail("nothing must be asked of the workers");
  expect(await operations.setListener("web", "drain")).toMatchObject({ ok: true });
});
