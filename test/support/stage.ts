// A connection between two fake sockets, on a clock that the test moves. The dialing is real, to a unix socket with or without a listener;
// the socket that it opens is replaced by a fake one.
import { afterEach, beforeEach, expect } from "vitest";
import { END_CODES, ENDED_BY, type End, type EndedBy } from "../../src/core/ends.ts";
import type { FromWorker, ListenerPlan, PoolPlan } from "../../src/messages.ts";
import { closeDescriptor, listenOn } from "../../src/platform/sockets.ts";
import { claimed } from "../../src/shared/cells.ts";
import { endCell } from "../../src/shared/counters.ts";
import { ROW, ROW_WORDS } from "../../src/shared/ledger.ts";
import { claimPlaces } from "../../src/worker/admission.ts";
import { TICK_MS } from "../../src/worker/clock.ts";
import { Connection } from "../../src/worker/connection.ts";
import { dial } from "../../src/worker/dialing.ts";
import { Listener } from "../../src/worker/listener.ts";
import { DataPlane } from "../../src/worker/plane.ts";
import { Pool } from "../../src/worker/pool.ts";
import { FakeSocket } from "./fake-socket.ts";
import { backendPlan, listenerPlan, openOf, plan, poolPlan, workerStart } from "./plans.ts";

/** The abstract unix socket on which the tests listen, and one without a listener. */
export const SOMEBODY = `lb-stage-${process.pid}-${Math.random()}`;
export const NOBODY = `${SOMEBODY}-nobody`;
export const RESET = Object.assign(new Error("reset"), { code: "ECONNRESET" });
export const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

let real: (() => void)[] = [];

/** Call it once per file: listens on SOMEBODY during each test. */
export function listenDuringTests(): void {
  let listening: number;
  beforeEach(() => {
    real = [];
    listening = listenOn({ kind: "abstract", name: SOMEBODY }, 64) as number;
  });
  afterEach(() => {
    for (const close of real) close();
    closeDescriptor(listening);
  });
}

/** One connection and everything around it. */
export class Stage {
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

  /** Replaces the socket that the last attempt opened by a fake one. */
  takeOver(by: FakeSocket = this.backend): void {
    const opened = this.connection.backendSocket;
    if (opened === null) return;
    real.push(() => opened.terminate());
    this.connection.backendSocket = by.socket;
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

  /** Moves the clock to this long after the start of the last attempt, which counts from the real time. */
  passSinceDial(ms: number): void {
    this.pass(Math.max(0, this.connection.dialStartedMs - this.plane.wheel.now) + ms);
  }

  ends(end: End, by: EndedBy): number {
    return this.listenerPlan.counters[endCell(end, by)]!;
  }

  /** The ends so far: "eof client", for example. */
  get ended(): string[] {
    return Object.keys(END_CODES).flatMap((end) =>
      ENDED_BY.flatMap((by) => Array<string>(this.ends(end as End, by)).fill(`${end} ${by}`)),
    );
  }

  /** Claimed places of the process, the listener and the backends. */
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
