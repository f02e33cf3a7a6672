// lb after a stall, as when a virtual machine is moved: the deadlines passed meanwhile, but so did the bytes arrive.
import { expect, test } from "vitest";
import { echo } from "../support/backends.ts";
import { connect } from "../support/client.ts";
import { freePorts, startLb } from "../support/lb.ts";

/** Deadlines that pass during the stall, and not while the test prepares it. */
const TIMEOUT_MS = 2000;
const STALL_MS = TIMEOUT_MS + 500;

test("bytes that arrived during a stall of the process go before the deadlines that passed in it", async () => {
  using backend = await echo();
  const [head, idle] = await freePorts(2);
  await using lb = await startLb(`
    workers = 1
    [listeners.head]
    bind = "127.0.0.1:${head}"
    pool = "app"
    proxy_protocol = "required"
    trusted_proxies = ["127.0.0.1"]
    timeouts.handshake = "${TIMEOUT_MS}ms"
    [listeners.idle]
    bind = "127.0.0.1:${idle}"
    pool = "app"
    timeouts.idle = "${TIMEOUT_MS}ms"
    [pools.app]
    backends = ["${backend.address}"]
    health.type = "off"
  `);
  using relayed = await connect(idle!);
  expect(await relayed.echoes()).toBe(true);
  using fresh = await connect(head!);
  await lb.waitStatus(({ listeners }) => listeners.every(({ open }) => open === 1));
  await lb.whileHeld(async () => {
    fresh.send("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
    fresh.send("late but there\n");
    relayed.send("so is this\n");
    await new Promise((resolve) => setTimeout(resolve, STALL_MS));
  });
  expect(await fresh.line()).toBe("late but there");
  expect(await relayed.line()).toBe("so is this");
});
