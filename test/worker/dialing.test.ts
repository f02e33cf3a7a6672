import { describe, expect, test } from "vitest";
import { claim, claimed } from "../../src/shared/cells.ts";
import { BACKEND } from "../../src/shared/counters.ts";
import { CLAIM, ROW, ROW_WORDS } from "../../src/shared/ledger.ts";
import { TICK_MS } from "../../src/worker/clock.ts";
import { Connection } from "../../src/worker/connection.ts";
import { dial } from "../../src/worker/dialing.ts";
import { DIAL_QUEUE_BYTES } from "../../src/worker/flow.ts";
import { FakeSocket } from "../support/fake-socket.ts";
import { backendPlan, countersOf, openOf } from "../support/plans.ts";
import { encode, listenDuringTests, NOBODY, RESET, SOMEBODY, Stage } from "../support/stage.ts";

listenDuringTests();

const REFUSED = Object.assign(new Error("refused"), { code: "ECONNREFUSED" });

describe("dialing", () => {
  test("claims the backend and writes it into the ledger, until the connection ends", () => {
    const stage = new Stage();
    const at = stage.connection.row * ROW_WORDS;
    stage.dial();
    expect(stage.connection.phase.name).toBe("dialing");
    expect(stage.words[at]! & CLAIM.backend).toBe(CLAIM.backend);
    expect(stage.words[at + ROW.backend]).toBe(stage.poolPlan.backends[0]!.id);
    expect(stage.words[at + ROW.backendFd]).toBeGreaterThan(0);
    stage.connection.clientClosed(RESET);
    expect(stage.ended).toEqual(["reset client"]);
    expect(stage.claims).toEqual([0, 0, 0]);
    expect(stage.backend.calls).toEqual(["terminate"]);
  });

  test("leaves no descriptor in the ledger when the worker ends: other threads reuse their numbers", () => {
    const stage = new Stage();
    const at = stage.connection.row * ROW_WORDS;
    stage.dial();
    stage.words[at + ROW.clientFd] = stage.words[at + ROW.backendFd]!;
    stage.connection.abandon();
    expect([stage.words[at + ROW.clientFd], stage.words[at + ROW.backendFd]]).toEqual([-1, -1]);
  });

  test("queues what the client sends meanwhile, and its FIN, and passes both on in order", () => {
    const stage = new Stage();
    const { connection, client, backend } = stage;
    connection.clientData(encode("first "));
    stage.dial();
    connection.clientData(encode("second"));
    connection.clientEnded();
    expect(backend.text).toBe("");
    connection.backendDrained(backend.socket);
    expect(backend.text).toBe("first second");
    expect(backend.calls).toEqual(["shutdown"]);
    connection.backendData(backend.socket, encode("reply"));
    connection.backendClosed(backend.socket, undefined);
    expect(client.text).toBe("reply");
    expect(client.calls).toEqual(["close"]);
    expect(stage.ended).toEqual(["eof client"]);
    expect(stage.lines[0]).toMatchObject({ bytes_in: 12, bytes_out: 5, end: "eof", end_by: "client" });
  });

  test("pauses a client that sends too much meanwhile", () => {
    const stage = new Stage();
    stage.dial();
    stage.connection.clientData(new Uint8Array(DIAL_QUEUE_BYTES));
    expect(stage.client.paused).toBe(true);
    stage.connection.backendDrained(stage.backend.socket);
    expect(stage.client.paused).toBe(false);
  });

  test("ends with the first byte of a backend that sends first", () => {
    const stage = new Stage();
    stage.dial();
    stage.connection.backendData(stage.backend.socket, encode("220 hello\r\n"));
    expect(stage.connection.phase.name).toBe("relaying");
    expect(stage.client.text).toBe("220 hello\r\n");
  });

  test("tries other backends, each once, and counts the outcome of each", () => {
    const stage = new Stage({ backends: [NOBODY, NOBODY, SOMEBODY] });
    stage.dial();
    expect(stage.connection.backend!.name).toBe("backend2");
    stage.connection.clientData(encode("question"));
    stage.connection.backendDrained(stage.backend.socket);
    const cells = (cell: number): number[] => stage.poolPlan.backends.map((backend) => countersOf(backend)[cell]!);
    expect(cells(BACKEND.dials)).toEqual([1, 1, 1]);
    expect(cells(BACKEND.refused)).toEqual([1, 1, 0]);
    expect(cells(BACKEND.retriedAway)).toEqual([1, 1, 0]);
    expect(cells(BACKEND.connected)).toEqual([0, 0, 1]);
    expect(cells(BACKEND.bytesIn)).toEqual([0, 0, 8]);
    expect(stage.claims).toEqual([1, 1, 0, 0, 1]);
    stage.connection.clientEnded();
    stage.connection.backendEnded(stage.backend.socket);
    expect(stage.lines[0]).toMatchObject({ retries: 2, backend: "backend2", end: "eof" });
    expect(stage.claims).toEqual([0, 0, 0, 0, 0]);
  });

  test("gives up after as many further backends as `retries` says", () => {
    const stage = new Stage({ backends: [NOBODY, NOBODY, NOBODY, SOMEBODY], pool: { retries: 1 } });
    stage.dial();
    expect(stage.ended).toEqual(["connect_refused backend"]);
    expect(stage.lines[0]).toMatchObject({ retries: 1, error: "ECONNREFUSED", backend: "backend1" });
    expect(stage.claims).toEqual([0, 0, 0, 0, 0, 0]);
    expect(stage.client.calls).toEqual(["terminate"]);
  });

  test("ignores the sockets of attempts that were given up", () => {
    const stage = new Stage({ backends: [SOMEBODY, SOMEBODY] });
    const { connection } = stage;
    stage.dial();
    const first = stage.backend;
    stage.passSinceDial(stage.poolPlan.connectTimeoutMs + 2 * TICK_MS);
    expect(first.calls).toEqual(["terminate"]);
    const second = new FakeSocket();
    stage.takeOver(second);
    expect(connection.phase.name).toBe("dialing");
    connection.backendDrained(first.socket);
    connection.backendData(first.socket, encode("late"));
    connection.backendEnded(first.socket);
    connection.backendClosed(first.socket, REFUSED);
    expect(connection.phase.name).toBe("dialing");
    connection.backendDrained(second.socket);
    expect(connection.phase.name).toBe("relaying");
    expect(stage.client.text).toBe("");
  });

  test.each([
    ["ECONNREFUSED", "connect_refused", BACKEND.refused],
    ["ETIMEDOUT", "connect_timeout", BACKEND.timedOut],
    ["EHOSTUNREACH", "connect_failed", BACKEND.failed],
  ] as const)("names %s %s", (code, end, cell) => {
    const stage = new Stage();
    stage.dial();
    stage.connection.backendClosed(stage.backend.socket, Object.assign(new Error(code), { code }));
    expect(stage.ended).toEqual([`${end} backend`]);
    expect(countersOf(stage.poolPlan.backends[0]!)[cell]).toBe(1);
    expect(stage.lines[0]).toMatchObject({ error: code });
  });

  test.each(["EMFILE", "ENFILE", "ENOBUFS", "EADDRNOTAVAIL", "EAGAIN"])(
    "%s is lb's own failure and counts against no backend",
    (code) => {
      const stage = new Stage();
      stage.dial();
      stage.connection.backendClosed(stage.backend.socket, Object.assign(new Error(code), { code }));
      expect(stage.ended).toEqual(["connect_failed lb"]);
      const counters = countersOf(stage.poolPlan.backends[0]!);
      for (const cell of [BACKEND.refused, BACKEND.timedOut, BACKEND.failed]) expect(counters[cell]).toBe(0);
      expect(stage.lines[0]).toMatchObject({ error: code });
    },
  );

  test("has its full timeout even if the thread has waited for a CPU and the wheel's clock lags", () => {
    const stage = new Stage({ pool: { connectTimeoutMs: 2 * TICK_MS } });
    Bun.sleepSync(6 * TICK_MS);
    stage.dial();
    stage.plane.wheel.advance(stage.connection.dialStartedMs);
    expect(stage.connection.phase.name).toBe("dialing");
    expect(stage.ended).toEqual([]);
  });

  test("has its full timeout, and then ends as connect_timeout", () => {
    const stage = new Stage({ pool: { connectTimeoutMs: 1000 } });
    stage.dial();
    stage.passSinceDial(1000);
    expect(stage.connection.phase.name).toBe("dialing");
    stage.pass(2 * TICK_MS);
    expect(stage.ended).toEqual(["connect_timeout backend"]);
  });

  test("ends with no_route, no_backend or queue_full if there is nothing to dial", () => {
    const noRoute = new Stage();
    const nowhere = noRoute.listenerWith(new Map());
    const row = noRoute.plane.ledger.take();
    const lost = new Connection(noRoute.plane, nowhere, new FakeSocket().socket, row);
    noRoute.plane.remember(lost);
    dial(lost);
    expect(noRoute.ended).toEqual(["no_route lb"]);

    const noBackend = new Stage({ pool: { tiers: [] } });
    noBackend.dial();
    expect(noBackend.ended).toEqual(["no_backend lb"]);

    const capped = backendPlan({ address: `unix:@${SOMEBODY}`, maxConnections: 1 });
    const full = new Stage({ pool: { backends: [capped] } });
    claim(openOf(capped), 1);
    full.dial();
    expect(full.ended).toEqual(["queue_full lb"]);
    expect(claimed(openOf(capped))).toBe(1);
  });
});
