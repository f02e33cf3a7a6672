import { describe, expect, test } from "vitest";
import type { ListenerPlan } from "../../src/messages.ts";
import { BACKEND, LISTENER, WORKER } from "../../src/shared/counters.ts";
import { ROW, ROW_FLOAT, ROW_FLOATS, ROW_WORDS } from "../../src/shared/ledger.ts";
import { TICK_MS } from "../../src/worker/clock.ts";
import { dial } from "../../src/worker/dialing.ts";
import { FailureReports, PassiveHealth } from "../../src/worker/failure-reports.ts";
import { DIAL_QUEUE_BYTES } from "../../src/worker/flow.ts";
import { startRelaying } from "../../src/worker/relaying.ts";
import { eventually } from "../support/eventually.ts";
import { countersOf } from "../support/plans.ts";
import { encode, listenDuringTests, RESET, Stage } from "../support/stage.ts";

listenDuringTests();

describe("relaying", () => {
  test("ends with a fault of TLS as a reset by the side that caused it", () => {
    for (const by of ["client", "backend"] as const) {
      const stage = new Stage();
      stage.relay();
      const fault = Object.assign(new Error("a spoiled record"), { code: "EPROTO" });
      if (by === "client") stage.connection.clientTlsFailed(fault);
      else stage.connection.backendTlsFailed(stage.backend.socket, fault);
      expect(stage.ended).toEqual([`reset ${by}`]);
      expect(stage.lines[0]).toMatchObject({ error: "tls" });
      // Of a socket that is given up already.
      stage.connection.clientTlsFailed(fault);
      stage.connection.backendTlsFailed(stage.backend.socket, fault);
      expect(stage.ended).toHaveLength(1);
    }
  });

  test("is written into the ledger, like every phase", () => {
    const stage = new Stage();
    const phases = [stage.plane.ledger.phase(stage.connection.row)];
    stage.dial();
    phases.push(stage.plane.ledger.phase(stage.connection.row));
    stage.connection.backendDrained(stage.backend.socket);
    phases.push(stage.plane.ledger.phase(stage.connection.row));
    expect(phases).toEqual(["accepted", "dialing", "relaying"]);
  });

  test("cannot begin twice, nor before a backend was dialed", () => {
    const stage = new Stage();
    expect(() => startRelaying(stage.connection, stage.backend.socket)).toThrow("accepted cannot become relaying");
    const other = new Stage();
    other.relay();
    expect(() => dial(other.connection)).toThrow("relaying cannot become dialing");
  });

  test("relays bytes in both directions and counts them for the right side", () => {
    const stage = new Stage();
    stage.relay();
    stage.connection.clientData(encode("question"));
    stage.connection.backendData(stage.backend.socket, encode("answer"));
    stage.connection.backendData(stage.backend.socket, encode("!"));
    expect([stage.backend.text, stage.client.text]).toEqual(["question", "answer!"]);
    const { counters } = stage.listener;
    expect([counters[LISTENER.bytesIn], counters[LISTENER.bytesOut]]).toEqual([8, 7]);
    expect([stage.plane.counters[WORKER.bytesIn], stage.plane.counters[WORKER.bytesOut]]).toEqual([8, 7]);
    const backend = countersOf(stage.poolPlan.backends[0]!);
    const cells = (): unknown[] => [backend[BACKEND.bytesIn], backend[BACKEND.bytesOut], backend[BACKEND.ended]];
    expect(cells()).toEqual([8, 7, 0]);
    stage.connection.finish("reset", "client");
    expect(cells()).toEqual([8, 7, 1]);
  });

  test("passes the client's FIN on after its last byte, and continues to relay the reply", () => {
    const stage = new Stage();
    stage.relay();
    const { connection, client, backend } = stage;
    backend.room = 3;
    connection.clientData(encode("request"));
    connection.clientEnded();
    expect(backend.calls).toEqual([]);
    backend.room = Infinity;
    connection.backendDrained(backend.socket);
    expect(backend.text).toBe("request");
    expect(backend.calls).toEqual(["shutdown"]);
    connection.backendData(backend.socket, encode("reply"));
    expect(client.text).toBe("reply");
    expect(connection.phase.name).toBe("relaying");
    // After lb's own FIN, the backend's comes as a close without an error.
    connection.backendClosed(backend.socket, undefined);
    expect(client.calls).toEqual(["pause", "resume", "close"]);
    expect(stage.ended).toEqual(["eof client"]);
  });

  test("passes the backend's FIN on after its last byte, and continues to relay the client's data", () => {
    const stage = new Stage();
    stage.relay();
    const { connection, client, backend } = stage;
    client.room = 3;
    connection.backendData(backend.socket, encode("greeting"));
    connection.backendEnded(backend.socket);
    expect(client.calls).toEqual([]);
    client.room = Infinity;
    connection.clientDrained();
    expect(client.text).toBe("greeting");
    expect(client.calls).toEqual(["shutdown"]);
    connection.clientData(encode("more"));
    expect(backend.text).toBe("more");
    connection.clientClosed(undefined);
    expect(backend.calls).toEqual(["pause", "resume", "close"]);
    expect(stage.ended).toEqual(["eof backend"]);
  });

  test("closes a side that has got no FIN yet in one step", () => {
    const stage = new Stage();
    stage.relay();
    stage.connection.backendEnded(stage.backend.socket);
    stage.connection.clientEnded();
    expect([stage.client.calls, stage.backend.calls]).toEqual([["shutdown", "close"], ["close"]]);
    expect(stage.ended).toEqual(["eof backend"]);
  });

  test("drains the queued bytes of a backend that is closed already", () => {
    const stage = new Stage();
    stage.relay();
    const { connection, client, backend } = stage;
    connection.clientEnded();
    client.room = 2;
    connection.backendData(backend.socket, encode("reply"));
    connection.backendClosed(backend.socket, undefined);
    expect(connection.phase.name).toBe("relaying");
    // Its descriptor may be another socket's now.
    expect(stage.words[connection.row * ROW_WORDS + ROW.backendFd]).toBe(-1);
    client.room = Infinity;
    connection.clientDrained();
    expect(client.text).toBe("reply");
    expect(client.calls).toEqual(["close"]);
    expect(stage.ended).toEqual(["eof client"]);
  });

  test("passes a reset on as a reset at once, and drops queued bytes", () => {
    for (const by of ["client", "backend"] as const) {
      const stage = new Stage();
      stage.relay();
      const { connection, client, backend } = stage;
      const other = by === "client" ? backend : client;
      other.room = 1;
      if (by === "client") connection.clientData(encode("half of it"));
      else connection.backendData(backend.socket, encode("half of it"));
      if (by === "client") connection.clientClosed(RESET);
      else connection.backendClosed(backend.socket, RESET);
      expect(other.text).toBe("h");
      expect(other.calls).toEqual(["terminate"]);
      expect(stage.ended).toEqual([`reset ${by}`]);
    }
  });

  test("passes on a FIN at once, and as a reset the reset that follows it", () => {
    const stage = new Stage();
    stage.relay();
    stage.connection.backendData(stage.backend.socket, encode("part"));
    stage.connection.backendEnded(stage.backend.socket);
    stage.connection.backendClosed(stage.backend.socket, Object.assign(new Error("EPIPE"), { code: "EPIPE" }));
    expect(stage.client.calls).toEqual(["shutdown", "terminate"]);
    expect(stage.ended).toEqual(["reset backend"]);
  });

  test("reports the backend's reset for passive health only if it has sent nothing before", () => {
    const resets = [[], [encode("reply")]].map((replies) => {
      const stage = new Stage();
      stage.relay();
      const { backend } = stage.connection;
      const reports = new FailureReports(() => undefined);
      backend!.passive = new PassiveHealth({ connect: true, earlyReset: true }, reports);
      for (const reply of replies) stage.connection.backendData(stage.backend.socket, reply);
      stage.connection.backendClosed(stage.backend.socket, RESET);
      expect(stage.ended).toEqual(["reset backend"]);
      return reports.of(backend!.id).earlyReset;
    });
    expect(resets).toEqual([1, 0]);
  });

  test("treats a write to a closed socket as its reset", () => {
    const stage = new Stage();
    stage.relay();
    stage.backend.closed = true;
    stage.connection.clientData(encode("to nobody"));
    expect(stage.ended).toEqual(["reset backend"]);
    expect(stage.client.calls).toEqual(["terminate"]);

    const other = new Stage();
    other.relay();
    other.client.closed = true;
    other.connection.backendData(other.backend.socket, encode("to nobody"));
    expect(other.ended).toEqual(["reset client"]);
  });

  test("pauses a sender whose receiver is full, each direction separately", () => {
    const stage = new Stage();
    stage.relay();
    const { connection, client, backend } = stage;
    backend.room = 0;
    connection.clientData(new Uint8Array(DIAL_QUEUE_BYTES));
    expect([client.paused, backend.paused]).toEqual([true, false]);
    client.room = 0;
    connection.backendData(backend.socket, new Uint8Array(DIAL_QUEUE_BYTES));
    expect([client.paused, backend.paused]).toEqual([true, true]);
    backend.room = Infinity;
    connection.backendDrained(backend.socket);
    expect([client.paused, backend.paused]).toEqual([false, true]);
  });
});

describe("timeouts", () => {
  const timeouts = (given: Partial<ListenerPlan["timeoutsMs"]>): Partial<ListenerPlan> => ({
    timeoutsMs: { handshake: 0, idle: 0, halfClose: 0, lifetime: 0, ...given },
  });

  test("idle: ends after the last byte either way", () => {
    const stage = new Stage({ listener: timeouts({ idle: 5000 }) });
    stage.relay();
    for (let i = 0; i < 4; i++) {
      stage.pass(4900);
      if (i % 2 === 0) stage.connection.clientData(encode("x"));
      else stage.connection.backendData(stage.backend.socket, encode("y"));
    }
    stage.pass(5000);
    expect(stage.connection.phase.name).toBe("relaying");
    stage.pass(2 * TICK_MS);
    expect(stage.ended).toEqual(["idle_timeout lb"]);
    expect([stage.client.calls, stage.backend.calls]).toEqual([["terminate"], ["terminate"]]);
  });

  test("half_close: counts from the FIN, not from the last byte before it", () => {
    const stage = new Stage({ listener: timeouts({ idle: 60_000, halfClose: 2000 }) });
    stage.relay();
    stage.pass(30_000);
    stage.connection.clientEnded();
    stage.pass(2000);
    expect(stage.connection.phase.name).toBe("relaying");
    stage.pass(2 * TICK_MS);
    expect(stage.ended).toEqual(["half_close_timeout lb"]);
  });

  test("half_close: starts again with each byte of the other side", () => {
    const stage = new Stage({ listener: timeouts({ halfClose: 2000 }) });
    stage.relay();
    stage.connection.backendEnded(stage.backend.socket);
    for (let i = 0; i < 5; i++) {
      stage.pass(1900);
      stage.connection.clientData(encode("x"));
    }
    expect(stage.connection.phase.name).toBe("relaying");
    stage.pass(2000 + 2 * TICK_MS);
    expect(stage.ended).toEqual(["half_close_timeout lb"]);
  });

  test("lifetime: ends within its last tenth, however busy the connection is", () => {
    for (let i = 0; i < 20; i++) {
      const stage = new Stage({ listener: timeouts({ lifetime: 10_000 }) });
      stage.relay();
      stage.pass(9000);
      expect(stage.connection.phase.name).toBe("relaying");
      stage.connection.clientData(encode("busy"));
      stage.pass(1000 + 2 * TICK_MS);
      expect(stage.ended).toEqual(["lifetime lb"]);
    }
  });

  test("lifetime: connections opened together end at times that are spread over its last tenth", () => {
    const stage = new Stage({ listener: timeouts({ lifetime: 10_000 }) });
    const { connection, plane } = stage;
    const ends = Array.from({ length: 100 }, (_, i) => {
      plane.floats[connection.row * ROW_FLOATS + ROW_FLOAT.id] = 1_000_000 + i;
      return connection.lifetimeEndsWheelMs - connection.startedWheelMs;
    });
    const tenths = new Set(ends.map((ms) => Math.floor((ms - 9000) / 100)));
    expect(tenths).toEqual(new Set([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]));
  });

  test("none: a connection may be silent without limit", () => {
    const stage = new Stage({ listener: timeouts({}), pool: { keepaliveMs: 0 } });
    stage.relay();
    stage.pass(3_600_000);
    expect(stage.connection.phase.name).toBe("relaying");
    expect(stage.plane.wheel.size).toBe(0);
  });

  test("a stop of the worker ends it at the time given", () => {
    const stage = new Stage();
    stage.relay();
    stage.connection.stopAt(stage.plane.wheel.now + 1000);
    stage.pass(900);
    expect(stage.connection.phase.name).toBe("relaying");
    stage.pass(200);
    expect(stage.ended).toEqual(["shutdown lb"]);
  });
});

describe("a bandwidth limit", () => {
  test("delays bytes and FIN until their time, and wakes up for them by itself", async () => {
    const stage = new Stage({
      listener: { bandwidth: { upload: 1000, download: 0, per: "connection", memory: null } },
    });
    stage.relay();
    const { connection, client, backend } = stage;
    connection.clientData(encode("x".repeat(320)));
    connection.clientEnded();
    connection.backendData(backend.socket, encode("at once"));
    expect(client.text).toBe("at once");
    // At most a tenth of a second's worth.
    expect(backend.text.length).toBeLessThanOrEqual(100);
    expect(backend.calls).toEqual([]);
    const began = performance.now();
    await eventually("the FIN", () => backend.calls.length > 0);
    expect(performance.now() - began).toBeGreaterThan(150);
    expect(backend.text).toHaveLength(320);
    expect(backend.calls).toEqual(["shutdown"]);
    connection.backendClosed(backend.socket, undefined);
    expect(stage.ended).toEqual(["eof client"]);
  });
});
