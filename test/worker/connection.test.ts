// A connection between two fake sockets, on a clock that the test moves. The dialling is real, to a unix socket that
// somebody listens on or nobody; what it opens is exchanged for a fake one.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { FromWorker, ListenerPlan, PoolPlan } from "../../src/messages.ts";
import { END_CODES, ENDED_BY, type End, type EndedBy } from "../../src/core/ends.ts";
import { closeDescriptor, listenOn } from "../../src/platform/sockets.ts";
import { claim, claimed } from "../../src/shared/cells.ts";
import { BACKEND, endCell, LISTENER, WORKER } from "../../src/shared/counters.ts";
import { CLAIM, ROW, ROW_WORDS } from "../../src/shared/ledger.ts";
import { TICK_MS } from "../../src/worker/clock.ts";
import { Connection } from "../../src/worker/connection.ts";
import { attemptFailed, dial } from "../../src/worker/dialing.ts";
import { claimPlaces } from "../../src/worker/admission.ts";
import { LINGER_MS } from "../../src/worker/closing.ts";
import { DIAL_QUEUE_BYTES } from "../../src/worker/flow.ts";
import { Listener } from "../../src/worker/listener.ts";
import { DataPlane } from "../../src/worker/plane.ts";
import { Pool } from "../../src/worker/pool.ts";
import { startRelaying } from "../../src/worker/relaying.ts";
import { eventually } from "../support/eventually.ts";
import { FakeSocket } from "../support/fake-socket.ts";
import { backendPlan, listenerPlan, plan, poolPlan, openOf, countersOf, workerStart } from "../support/plans.ts";

const SOMEBODY = `lb-connection-test-${process.pid}-${Math.random()}`;
const NOBODY = `${SOMEBODY}-nobody`;
const RESET = Object.assign(new Error("reset"), { code: "ECONNRESET" });
const REFUSED = Object.assign(new Error("refused"), { code: "ECONNREFUSED" });
const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

let listening: number;
let real: (() => void)[];
beforeEach(() => {
  real = [];
  listening = listenOn({ kind: "abstract", name: SOMEBODY }, 64) as number;
});
afterEach(() => {
  for (const close of real) close();
  closeDescriptor(listening);
});

/** One connection and everything around it. */
class Stage {
  readonly messages: FromWorker[] = [];
  readonly listenerPlan: ListenerPlan;
  readonly poolPlan: PoolPlan;
  readonly plane: DataPlane;
  readonly listener: Listener;
  readonly client = new FakeSocket();
  readonly backend = new FakeSocket();
  readonly connection: Connection;

  constructor(given: { listener?: Partial<ListenerPlan>; pool?: Partial<PoolPlan>; backends?: string[] } = {}) {
    const backends = (given.backends ?? [SOMEBODY]).map((name, i) =>
      backendPlan({ name: `backend${i}`, address: `unix:@${name}` }),
    );
    this.poolPlan = poolPlan({ backends, ...given.pool });
    this.listenerPlan = listenerPlan({ pool: this.poolPlan.id, ...given.listener });
    this.plane = new DataPlane(workerStart(plan()), (message) => this.messages.push(message));
    this.plane.maxConnections = 10;
    this.listener = this.listenerWith(new Map([[this.poolPlan.id, new Pool(this.poolPlan, null, 0)]]));
    const row = this.plane.ledger.take();
    // A fake socket has no descriptor.
    this.words[row * ROW_WORDS + ROW.clientFd] = -1;
    this.connection = new Connection(this.plane, this.listener, this.client.socket, row);
    this.plane.remember(this.connection);
    expect(claimPlaces(this.plane, this.listener, row)).toBeNull();
  }

  listenerWith(pools: ReadonlyMap<number, Pool>): Listener {
    return new Listener(this.listenerPlan, pools, null, 0);
  }

  get words(): Int32Array {
    return this.plane.words;
  }

  /** Dials; the socket of the attempt is the fake one. */
  dial(): void {
    dial(this.connection);
    this.takeOver();
  }

  /** The fake socket in the place of the one that the last attempt has opened. */
  takeOver(): void {
    const opened = this.connection.backendSocket;
    if (opened === null) return;
    real.push(() => opened.terminate());
    this.connection.backendSocket = this.backend.socket;
  }

  /** Dials, and the backend answers. */
  relay(): void {
    this.dial();
    this.connection.backendDrained(this.backend.socket);
    expect(this.connection.phase.name).toBe("relaying");
  }

  /** Moves the clock tick by tick. */
  pass(ms: number): void {
    const end = this.plane.wheel.now + ms;
    while (this.plane.wheel.now < end) this.plane.wheel.advance(Math.min(end, this.plane.wheel.now + TICK_MS));
  }

  /** Moves the clock to so long after the begin of the last attempt, which counts from the true time. */
  passSinceDial(ms: number): void {
    this.pass(Math.max(0, this.connection.dialStartedMs - this.plane.wheel.now) + ms);
  }

  ends(end: End, by: EndedBy): number {
    return this.listenerPlan.counters[endCell(end, by)]!;
  }

  /** How it has ended: "eof client", for example. */
  get ended(): string[] {
    return Object.keys(END_CODES).flatMap((end) =>
      ENDED_BY.flatMap((by) => Array<string>(this.ends(end as End, by)).fill(`${end} ${by}`)),
    );
  }

  /** Places claimed of the process, the listener and the backends. */
  get claims(): number[] {
    return [this.plane.open, this.listenerPlan.open, ...this.poolPlan.backends.map(openOf)].map(claimed);
  }

  get lines(): Record<string, unknown>[] {
    this.plane.accessLog.flush();
    return this.messages.flatMap((message) =>
      message.kind === "access"
        ? message.text
            .trimEnd()
            .split("\n")
            .map((line) => JSON.parse(line) as never)
        : [],
    );
  }
}

describe("the end of a connection", () => {
  test("comes once: claims end, counters move and one line is written, whatever is called afterwards", () => {
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

  test("makes every later event nothing", () => {
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

describe("dialing", () => {
  test("claims the backend and notes it in the ledger, until the connection ends", () => {
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

  test("keeps what the client says meanwhile, and its FIN, and passes both on in order", () => {
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

  test("pauses a client that says too much meanwhile", () => {
    const stage = new Stage();
    stage.dial();
    stage.connection.clientData(new Uint8Array(DIAL_QUEUE_BYTES));
    expect(stage.client.paused).toBe(true);
    stage.connection.backendDrained(stage.backend.socket);
    expect(stage.client.paused).toBe(false);
  });

  test("is over with the first byte of a backend that speaks first", () => {
    const stage = new Stage();
    stage.dial();
    stage.connection.backendData(stage.backend.socket, encode("220 hello\r\n"));
    expect(stage.connection.phase.name).toBe("relaying");
    expect(stage.client.text).toBe("220 hello\r\n");
  });

  test("tries other backends, each once, and counts what became of each", () => {
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
    const opened = connection.backendSocket!;
    real.push(() => opened.terminate());
    connection.backendSocket = second.socket;
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

  test("has its whole time where the thread has waited for a processor and the clock is behind", () => {
    const stage = new Stage({ pool: { connectTimeoutMs: 2 * TICK_MS } });
    Bun.sleepSync(6 * TICK_MS);
    stage.dial();
    stage.plane.wheel.advance(performance.now());
    expect(stage.connection.phase.name).toBe("dialing");
    expect(stage.ended).toEqual([]);
  });

  test("takes its time, never less, and then says connect_timeout", () => {
    const stage = new Stage({ pool: { connectTimeoutMs: 1000 } });
    stage.dial();
    stage.passSinceDial(1000);
    expect(stage.connection.phase.name).toBe("dialing");
    stage.pass(2 * TICK_MS);
    expect(stage.ended).toEqual(["connect_timeout backend"]);
  });

  test("ends with no_route, no_backend or queue_full where there is nowhere to dial", () => {
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

describe("relaying", () => {
  test("ends with a fault of TLS as a reset by the side whose it is", () => {
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

  test("is told by the ledger, as every phase is", () => {
    const stage = new Stage();
    const phases = [stage.plane.ledger.phase(stage.connection.row)];
    stage.dial();
    phases.push(stage.plane.ledger.phase(stage.connection.row));
    stage.connection.backendDrained(stage.backend.socket);
    phases.push(stage.plane.ledger.phase(stage.connection.row));
    expect(phases).toEqual(["accepted", "dialing", "relaying"]);
  });

  test("cannot begin anew, nor before a backend was dialled", () => {
    const stage = new Stage();
    expect(() => startRelaying(stage.connection, stage.backend.socket)).toThrow("accepted cannot become relaying");
    const other = new Stage();
    other.relay();
    expect(() => dial(other.connection)).toThrow("relaying cannot become dialing");
  });

  test("carries bytes both ways and counts them where they belong", () => {
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

  test("passes the client's FIN on after its last byte, and lets the reply go on", () => {
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
    // After our own FIN, the backend's comes as a close without an error.
    connection.backendClosed(backend.socket, undefined);
    expect(client.calls).toEqual(["pause", "resume", "close"]);
    expect(stage.ended).toEqual(["eof client"]);
  });

  test("passes the backend's FIN on after its last byte, and lets the client go on", () => {
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

  test("closes a side that has not heard of an end yet in one step", () => {
    const stage = new Stage();
    stage.relay();
    stage.connection.backendEnded(stage.backend.socket);
    stage.connection.clientEnded();
    expect([stage.client.calls, stage.backend.calls]).toEqual([["shutdown", "close"], ["close"]]);
    expect(stage.ended).toEqual(["eof backend"]);
  });

  test("drains what a backend left behind that is closed already", () => {
    const stage = new Stage();
    stage.relay();
    const { connection, client, backend } = stage;
    connection.clientEnded();
    client.room = 2;
    connection.backendData(backend.socket, encode("reply"));
    connection.backendClosed(backend.socket, undefined);
    expect(connection.phase.name).toBe("relaying");
    // Its number may be another socket's now.
    expect(stage.words[connection.row * ROW_WORDS + ROW.backendFd]).toBe(-1);
    client.room = Infinity;
    connection.clientDrained();
    expect(client.text).toBe("reply");
    expect(client.calls).toEqual(["close"]);
    expect(stage.ended).toEqual(["eof client"]);
  });

  test("passes a reset on as a reset, at once, with everything that waits", () => {
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

  test("takes a write that meets a closed socket for its reset", () => {
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

  test("pauses the one who talks too much for the other, each for itself", () => {
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

  test("half_close: counts anew with each byte of the other side", () => {
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

  test("none: a connection may be silent for ever", () => {
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

describe('with on_abort = "close" an end that lb imposes', () => {
  const closing: Partial<ListenerPlan> = { onAbort: "close" };
  const how = (stage: Stage): string[][] => [stage.client.calls, stage.backend.calls];
  const FIN = [["close"], ["close"]];
  const RST = [["terminate"], ["terminate"]];

  test.each(["idle_timeout", "half_close_timeout"] as const)(
    "%s is a FIN, for nothing has come for its time",
    (end) => {
      const stage = new Stage({ listener: closing });
      stage.relay();
      stage.connection.finish(end, "lb");
      expect(how(stage)).toEqual(FIN);
    },
  );

  test.each(["lifetime", "shutdown"] as const)(
    "%s is a FIN where nothing has moved for a second, else a reset",
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

  test("is a reset where bytes still wait, so that nobody takes a part for the whole", () => {
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

  test("backend_down is a reset all the same", () => {
    const stage = new Stage({ listener: closing });
    stage.relay();
    stage.pass(5000);
    stage.connection.finish("backend_down", "lb");
    expect(how(stage)).toEqual(RST);
  });
});

describe("a client that is turned away", () => {
  test("sees a reset, or a FIN where the config says so and then a second at most", () => {
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

  test("is forgotten with its own FIN", () => {
    const stage = new Stage({ listener: { overLimit: "close" } });
    stage.connection.finish("listener_full", "lb");
    expect(stage.plane.wheel.size).toBe(1);
    stage.connection.clientClosed(undefined);
    expect(stage.plane.wheel.size).toBe(0);
    stage.pass(2 * LINGER_MS);
    expect(stage.client.calls).toEqual(["shutdown"]);
  });

  test("is reset when too many wait for their FIN already, and waits again when there are fewer", () => {
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

  test("gives its place among those that wait back, however it goes", () => {
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

describe("a bandwidth limit", () => {
  test("holds bytes and FIN back until their time, and wakes up for them by itself", async () => {
    const stage = new Stage({ listener: { bandwidth: { upload: 1000, download: 0 } } });
    stage.relay();
    const { connection, client, backend } = stage;
    connection.clientData(encode("x".repeat(320)));
    connection.clientEnded();
    connection.backendData(backend.socket, encode("at once"));
    expect(client.text).toBe("at once");
    // What a tenth of a second is worth at the most.
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
