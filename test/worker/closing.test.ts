// Which of FIN and RST the two peers see. Any object with two sockets and two flows can be closed.
import { beforeEach, expect, test } from "vitest";
import type { End, EndedBy } from "../../src/core/ends.ts";
import type { ListenerPlan } from "../../src/messages.ts";
import { abortsWithFin, closePeers, LINGER_MS, type Peers } from "../../src/worker/closing.ts";
import { Flow } from "../../src/worker/flow.ts";
import { Listener } from "../../src/worker/listener.ts";
import { DataPlane } from "../../src/worker/plane.ts";
import { FakeSocket } from "../support/fake-socket.ts";
import { listenerPlan, plan, workerStart } from "../support/plans.ts";

let host: DataPlane;
let client: FakeSocket;
let backend: FakeSocket;
beforeEach(() => {
  host = new DataPlane(workerStart(plan()), () => undefined);
  client = new FakeSocket();
  backend = new FakeSocket();
});

function peers(given: Partial<Peers> = {}, listener: Partial<ListenerPlan> = {}): Peers {
  const timer = { timerNext: null, timerPrev: null, timerSlot: -1, timerAt: 0, onTimer: () => undefined };
  const descriptors = { clientFd: -1, backendFd: -1, resetsBackend: false, lingering: 0 };
  const flows = { toBackend: new Flow(), toClient: new Flow(), speaksTls: false, activeWheelMs: 0 };
  const sockets = { client: client.socket, backendSocket: backend.socket };
  const made = new Listener(listenerPlan(listener), new Map(), null, 0);
  return { ...timer, ...descriptors, ...flows, ...sockets, host, listener: made, ...given };
}

/** What happens to the client's socket and the backend's. */
function closed(of: Peers, end: End, by: EndedBy, relayed: boolean, withFin = false): string[] {
  closePeers(of, { end, by, error: "" }, relayed, withFin);
  return [client.calls.join(), backend.calls.join()];
}

test("an end on both sides closes both in one step", () => {
  expect(closed(peers(), "eof", "client", true)).toEqual(["close", "close"]);
});

test("an end on both sides sends close_notify if TLS is used", () => {
  expect(closed(peers({ speaksTls: true }), "eof", "client", true)).toEqual(["end", "end"]);
});

test("an end by lb is a reset for both sides, or a FIN if that is allowed", () => {
  expect(closed(peers(), "lifetime", "lb", true)).toEqual(["terminate", "terminate"]);
  [client, backend] = [new FakeSocket(), new FakeSocket()];
  expect(closed(peers(), "lifetime", "lb", true, true)).toEqual(["close", "close"]);
});

test('an end by lb may be a FIN only with on_abort = "close", if nothing waits or has moved lately, and nobody asks for a reset', () => {
  const quiet = { activeWheelMs: -Infinity };
  const close = { onAbort: "close" } as const;
  const may = (end: End, given: Partial<Peers> = quiet, listener: Partial<ListenerPlan> = close): boolean =>
    abortsWithFin(peers(given, listener), end);
  expect([may("lifetime"), may("shutdown"), may("idle_timeout")]).toEqual([true, true, true]);
  expect(may("lifetime", quiet, { onAbort: "reset" })).toBe(false);
  for (const end of ["reset", "backend_down", "killed", "drain"] as const)
    expect([end, may(end)]).toEqual([end, false]);
  const busy = { activeWheelMs: host.wheel.now };
  expect([may("lifetime", busy), may("idle_timeout", busy)]).toEqual([false, true]);
  const paused = Object.assign(new Flow(), { paused: true });
  expect([
    may("lifetime", { ...quiet, toClient: paused }),
    may("idle_timeout", { ...quiet, toBackend: paused }),
  ]).toEqual([false, false]);
});

test("with FIN a TLS peer gets a second to answer", () => {
  const both = peers({ speaksTls: true });
  expect(closed(both, "lifetime", "lb", true, true)).toEqual(["shutdown", "shutdown"]);
  expect([both.lingering, host.wheel.size]).toEqual([2, 1]);
  expect(both.timerAt).toBeGreaterThanOrEqual(LINGER_MS);
});

test("a client that gets an alert can read it, and the backend is reset", () => {
  expect(closed(peers(), "handshake_failed", "client", false)).toEqual(["shutdown", "terminate"]);
});

test("a client whose backend's handshake failed is reset", () => {
  expect(closed(peers(), "handshake_failed", "backend", false)).toEqual(["terminate", "terminate"]);
});

test("over_limit applies to clients that have not reached a backend", () => {
  expect(closed(peers({ backendSocket: null }, { overLimit: "close" }), "client_full", "lb", false)).toEqual([
    "shutdown",
    "",
  ]);
});
