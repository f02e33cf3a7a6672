// Which sockets a service manager has passed. test/e2e/socket-activation.test.ts shows that lb serves them.
import { expect, test } from "vitest";
import { inheritedSockets } from "../../src/platform/inherited.ts";

test.each([
  ["nothing was passed", {}],
  ["they are for another process", { LISTEN_PID: "1", LISTEN_FDS: "2" }],
  ["their number is missing", { LISTEN_PID: "4242" }],
  ["their number is no number", { LISTEN_PID: "4242", LISTEN_FDS: "many" }],
  ["their number is negative", { LISTEN_PID: "4242", LISTEN_FDS: "-1" }],
  ["there are more than a service manager passes", { LISTEN_PID: "4242", LISTEN_FDS: "1000000" }],
])("there are none if %s", (_what, env) => {
  expect(inheritedSockets(env, 4242)).toEqual([]);
});
