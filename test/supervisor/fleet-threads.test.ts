// Real worker threads: what they get while they boot.
import { expect, test } from "vitest";
import { claimed } from "../../src/shared/cells.ts";
import { WORKER } from "../../src/shared/counters.ts";
import { Fleet } from "../../src/supervisor/fleet.ts";
import type { WorkerSlot } from "../../src/supervisor/worker-slot.ts";
import { ActiveConfig } from "../../src/supervisor/active-config.ts";
import { poolState } from "../../src/supervisor/plans.ts";
import { Registry } from "../../src/supervisor/registry.ts";
import { ListeningSockets } from "../../src/supervisor/sockets.ts";
import { echo } from "../support/backends.ts";
import { connect } from "../support/client.ts";
import { configOf } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { freePort } from "../support/lb.ts";
import { recordingLog } from "../support/recording-log.ts";

const WORKERS = 2;

test("a thread serves with the current state of a pool that changed while it booted, also after a restart", async () => {
  using backend = await echo();
  const port = await freePort();
  const config = configOf(`
    workers = ${WORKERS}
    [log]
    access = "off"
    [listeners.web]
    bind = "127.0.0.1:${port}"
    pool = "app"
    [pools.app]
    backends = ["${backend.address}"]
  `);
  const { log } = recordingLog();
  const registry = new Registry();
  const sockets = new ListeningSockets();
  const active = new ActiveConfig(config, { registry, sockets, addresses: () => [], log });
  expect(await sockets.bind(config, WORKERS)).not.toHaveProperty("error");
  active.put(config);
  const open = registry.arena.int32(1);
  const fleet = new Fleet({
    spawn: () => {
      // The thread has its plan, and has not run a line yet.
      queueMicrotask(() => become(true));
      return new Worker(new URL("../../src/worker.ts", import.meta.url).href);
    },
    registry,
    log,
    planFor: (position) => active.planFor(position),
    ledgerRows: 64,
    open,
    ids: registry.arena.int32(1),
    onAccess: () => undefined,
    onLost: () => undefined,
    onOverBudget: () => undefined,
    onDeath: () => undefined,
    onFollowed: () => undefined,
    onFailures: () => undefined,
  });
  const [pool] = registry.pools;
  const [record] = pool!.backends;
  const become = (up: boolean): void => {
    record!.up = up;
    pool!.version++;
    fleet.sendPoolState(poolState(pool!));
  };
  const knowsPools = ({ counters }: WorkerSlot): boolean => counters[WORKER.poolVersions] === registry.poolVersions;
  // Every new connection is served, whichever worker takes it.
  const served = async (): Promise<void> => {
    for (let i = 0; i < 20; i++) {
      using client = await connect(port);
      expect(await client.echoes()).toBe(true);
    }
    await eventually("all are gone", () => claimed(open) === 0);
  };

  record!.up = false;
  expect(await fleet.growTo(WORKERS)).toBeNull();
  await served();
  for (let round = 0; round < 5; round++) {
    become(false);
    const slot = fleet.slots[round % WORKERS]!;
    const { restarts } = slot;
    slot.restart();
    await eventually("it serves again", () => slot.restarts > restarts && slot.state === "running");
    await eventually("all know the pool", () => fleet.slots.every(knowsPools));
    await served();
  }
  sockets.stopAll();
  await fleet.stopAll(0, 0);
});
