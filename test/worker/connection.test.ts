// The end of a connection and the events after it, between two fake sockets.
import { estimateShallowMemoryUsageOf } from "bun:jsc";
import { describe, expect, test } from "vitest";
import type { FromWorker, ListenerPlan } from "../../src/messages.ts";
import { WORKER } from "../../src/shared/counters.ts";
import { ROW_FLOAT, ROW_FLOATS, ROW_WORDS } from "../../src/shared/ledger.ts";
import { TICK_MS } from "../../src/worker/clock.ts";
import { LINGER_MS } from "../../src/worker/closing.ts";
import { attemptFailed } from "../../src/worker/dialing.ts";
import { encode, listenDuringTests, RESET, Stage } from "../support/stage.ts";

listenDuringTests();

// The engine has sizes of 16 + 8 x (6, 8, 12, 18, 26, 30, 38, ...) bytes for an object with this many fields.
test("a connection takes 224 bytes and each of its flows 80, while small chunks go through it", () => {
  const stage = new Stage({ listener: { timeoutsMs: { handshake: 0, idle: 60_000, halfClose: 1000, lifetime: 0 } } });
  stage.relay();
  const { connection, backend } = stage;
  connection.clientData(encode("request"));
  connection.backendData(backend.socket, encode("answer"));
  const { toBackend, toClient } = connection;
  expect([connection, toBackend, toClient].map((it) => estimateShallowMemoryUsageOf(it))).toEqual([224, 80, 80]);
  const nulls = [connection.facts, connection.tried, toBackend.pump, toBackend.queue, toClient.pump, toClient.queue];
  expect(nulls).toEqual(Array(6).fill(null));
});

describe("the end of a connection", () => {
  test("happens once: claims are released, counters move and one line is written, whatever is called afterwards", () => {
    const stage = new Stage();
    stage.relay();
    const { connection, client, backend } = stage;
    expect(stage.claims).toEqual([1, 1, 1]);
    connection.finish("lifetime", "lb");
    connection.finish("reset", "client");
    expect(stage.claims).toEqual([0, 0, 0]);
    expect(stage.ended).toEqual(["lifetime lb"]);
    expect(stage.lines).toHaveLength(1);
    expect(stage.plane.counters[WORKER.ended]).toBe(1);
    expect([client.calls, backend.calls]).toEqual([["terminate"], ["terminate"]]);
  });

  test("makes every later event have no effect", () => {
    const stage = new Stage();
    stage.relay();
    const { connection, client, backend } = stage;
    connection.finish("lifetime", "lb");
    // The row has a new owner by now.
    const row = stage.plane.ledger.take();
    expect(row).toBe(connection.row);
    const before = [...stage.words.subarray(row * ROW_WORDS, (row + 1) * ROW_WORDS)];
    connection.clientData(encode("late"));
    connection.clientDrained();
    connection.clientEnded();
    connection.clientClosed(undefined);
    connection.clientClosed(RESET);
    connection.backendOpened(backend.socket);
    connection.backendData(backend.socket, encode("late"));
    connection.backendDrained(backend.socket);
    connection.backendEnded(backend.socket);
    connection.backendClosed(backend.socket, RESET);
    attemptFailed(connection, "ECONNREFUSED");
    connection.wake(connection.toBackend);
    connection.wake(connection.toClient);
    connection.onTimer(stage.plane.wheel.now);
    expect(connection.phase.name).toBe("closed");
    expect([...stage.words.subarray(row * ROW_WORDS, (row + 1) * ROW_WORDS)]).toEqual(before);
    expect(stage.ended).toEqual(["lifetime lb"]);
    expect(client.text + backend.text).toBe("");
    expect(connection.toBackend.queue ?? connection.toClient.queue).toBeNull();
    expect(stage.claims).toEqual([0, 0, 0]);
  });

  test("leaves no timer", () => {
    const stage = new Stage({
      listener: { timeoutsMs: { handshake: 0, idle: 60_000, halfClose: 1000, lifetime: 90_000 } },
    });
    stage.relay();
    expect(stage.plane.wheel.size).toBe(1);
    stage.connection.finish("reset", "client");
    expect(stage.plane.wheel.size).toBe(0);
  });
});

describe("an end from outside the worker", () => {
  const order = (stage: Stage, id: number): void => {
    stage.plane.end({
      kind: "end",
      request: 7,
      end: "killed",
      rows: Uint32Array.of(stage.connection.row),
      ids: Float64Array.of(id),
    });
  };
  const answer = (stage: Stage): FromWorker | undefined => stage.messages.find(({ kind }) => kind === "ended");

  test("ends the connection in the row and is answered with the count", () => {
    const stage = new Stage();
    stage.relay();
    stage.plane.floats[stage.connection.row * ROW_FLOATS + ROW_FLOAT.id] = 41;
    order(stage, 41);
    expect(stage.ended).toEqual(["killed lb"]);
    expect(stage.lines).toMatchObject([{ id: 41, end: "killed", end_by: "lb" }]);
    expect(answer(stage)).toEqual({ kind: "ended", request: 7, count: 1 });
  });

  test("spares the connection that has the row now, and a row that is free", () => {
    const stage = new Stage();
    stage.relay();
    stage.plane.floats[stage.connection.row * ROW_FLOATS + ROW_FLOAT.id] = 42;
    order(stage, 41);
    expect(stage.ended).toEqual([]);
    expect(answer(stage)).toMatchObject({ count: 0 });
    stage.connection.finish("eof", "client");
    order(stage, 42);
    expect(stage.ended).toEqual(["eof client"]);
  });
});

describe('with on_abort = "close" an end that lb imposes', () => {
  const closing: Partial<ListenerPlan> = { onAbort: "close" };
  const how = (stage: Stage): string[][] => [stage.client.calls, stage.backend.calls];
  const FIN = [["close"], ["close"]];
  const RST = [["terminate"], ["terminate"]];

  test.each(["idle_timeout", "half_close_timeout"] as const)(
    "%s is a FIN, because nothing has arrived for its time",
    (end) => {
      const stage = new Stage({ listener: closing });
      stage.relay();
      stage.connection.finish(end, "lb");
      expect(how(stage)).toEqual(FIN);
    },
  );

  test.each(["lifetime", "shutdown"] as const)(
    "%s is a FIN if nothing has moved for a second, otherwise a reset",
    (end) => {
      const quiet = new Stage({ listener: closing });
      quiet.relay();
      quiet.pass(1000 + 2 * TICK_MS);
      quiet.connection.finish(end, "lb");
      expect(how(quiet)).toEqual(FIN);

      const busy = new Stage({ listener: closing });
      busy.relay();
      busy.pass(900);
      busy.connection.finish(end, "lb");
      expect(how(busy)).toEqual(RST);
    },
  );

  test.each(["killed", "drain", "backend_down"] as const)("%s is a reset anyway, also before relaying", (end) => {
    const relaying = new Stage({ listener: { ...closing, overLimit: "close" } });
    relaying.relay();
    relaying.pass(5000);
    relaying.connection.finish(end, "lb");
    expect(how(relaying)).toEqual(RST);

    const dialing = new Stage({ listener: { ...closing, overLimit: "close" } });
    dialing.dial();
    dialing.connection.finish(end, "lb");
    expect(how(dialing)).toEqual(RST);
  });

  test("is a reset if bytes still wait, so that a part does not look complete", () => {
    const stage = new Stage({ listener: closing });
    stage.relay();
    stage.client.room = 1;
    stage.connection.backendData(stage.backend.socket, encode("reply"));
    stage.pass(5000);
    stage.connection.finish("idle_timeout", "lb");
    expect(how(stage)).toEqual([["terminate"], ["pause", "terminate"]]);
  });

  test("is a reset while a sender is paused: its bytes may wait in the kernel", () => {
    const stage = new Stage({ listener: closing });
    stage.relay();
    stage.connection.toClient.pause();
    stage.pass(5000);
    stage.connection.finish("idle_timeout", "lb");
    expect(how(stage)).toEqual([["terminate"], ["pause", "terminate"]]);
  });

  test("backend_down is a reset anyway", () => {
    const stage = new Stage({ listener: closing });
    stage.relay();
    stage.pass(5000);
    stage.connection.finish("backend_down", "lb");
    expect(how(stage)).toEqual(RST);
  });
});

describe("a refused client", () => {
  test("gets a reset, or a FIN with over_limit = close and then a second at most", () => {
    const reset = new Stage();
    reset.connection.finish("rate_limited", "lb");
    expect(reset.client.calls).toEqual(["terminate"]);

    const close = new Stage({ listener: { overLimit: "close" } });
    close.connection.finish("rate_limited", "lb");
    expect(close.client.calls).toEqual(["shutdown"]);
    expect(close.claims).toEqual([0, 0, 0]);
    close.pass(LINGER_MS - TICK_MS);
    close.connection.clientData(encode("what the client still says is nobody's"));
    expect(close.client.calls).toEqual(["shutdown"]);
    close.pass(2 * TICK_MS);
    expect(close.client.calls).toEqual(["shutdown", "terminate"]);
  });

  test("is released with its own FIN", () => {
    const stage = new Stage({ listener: { overLimit: "close" } });
    stage.connection.finish("listener_full", "lb");
    expect(stage.plane.wheel.size).toBe(1);
    stage.connection.clientClosed(undefined);
    expect(stage.plane.wheel.size).toBe(0);
    stage.pass(2 * LINGER_MS);
    expect(stage.client.calls).toEqual(["shutdown"]);
  });

  test("is reset when too many already wait for their FIN, and waits again when there are fewer", () => {
    const stage = new Stage({ listener: { overLimit: "close" } });
    let waiting = 0;
    while (stage.plane.mayLinger(1)) waiting++;
    expect(waiting).toBeGreaterThan(100);
    stage.connection.finish("rate_limited", "lb");
    expect(stage.client.calls).toEqual(["terminate"]);
    stage.plane.lingered(1);
    expect(stage.plane.mayLinger(1)).toBe(true);
    expect(stage.plane.mayLinger(1)).toBe(false);
  });

  test("releases its place among those that wait, however it ends", () => {
    for (const leave of [
      (stage: Stage) => stage.connection.clientClosed(undefined),
      (stage: Stage) => stage.connection.clientClosed(RESET),
      (stage: Stage) => {
        stage.pass(LINGER_MS + 2 * TICK_MS);
        stage.connection.clientClosed(undefined);
      },
    ]) {
      const stage = new Stage({ listener: { overLimit: "close" } });
      stage.connection.finish("rate_limited", "lb");
      let free = 0;
      while (stage.plane.mayLinger(1)) free++;
      leave(stage);
      expect(stage.plane.mayLinger(1)).toBe(true);
      expect(stage.plane.mayLinger(1)).toBe(false);
      expect(free).toBeGreaterThan(0);
    }
  });
});
