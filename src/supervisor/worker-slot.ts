// The supervisor's side of one worker: starts its thread, gives it plans, starts it again when it dies, stops it.
import {
  LISTENING_MAX,
  type BackendFailures,
  type Follower,
  type FromWorker,
  type OrderedEnd,
  type Plan,
  type PoolState,
  type ToWorker,
} from "../messages.ts";
import type { AccessLine } from "../observe/access-line.ts";
import { monotonicMs } from "../platform/clock.ts";
import { hasDescriptors, replaceListeningFd, resetOnClose } from "../platform/sockets.ts";
import { activityMemory, ClientActivity } from "../shared/client-activity.ts";
import { WORKER } from "../shared/counters.ts";
import { Ledger, ledgerMemory, ROW, ROW_WORDS } from "../shared/ledger.ts";
import { PER_WORKER, THREAD_START } from "./budget.ts";
import type { Logger } from "./log.ts";
import { reclaim } from "./reclaim.ts";
import type { Registry } from "./registry.ts";

/** A worker that has not answered a plan after this time counts as hung and is restarted. */
const ANSWER_MS = 10_000;
/** Maximum wait for a worker's answer to a request to end connections. */
const END_ANSWER_MS = 3000;
/** A worker that was told to exit and has not after this time is terminated. */
const EXIT_MS = 250;
/** A worker that has not stopped this long after its deadline counts as hung. */
const STOP_GRACE_MS = 1000;
/** Restart back-off of a worker that dies repeatedly: the pause doubles with each death. */
const RESTART_FIRST_MS = 10;
const RESTART_MAX_MS = 5000;
/** After this lifetime, a worker's death counts as the first again. */
const STABLE_MS = 10_000;

export const NO_DESCRIPTORS =
  "the open-files limit leaves too few for the start of a worker; raise it (ulimit -n, LimitNOFILE of systemd)";

/** What a slot needs of the runtime's Worker. */
export interface Thread extends EventTarget {
  postMessage(message: ToWorker): void;
  terminate(): void;
}

/** What a slot needs of the supervisor; the same for all slots. */
export interface SlotOptions {
  spawn: () => Thread;
  registry: Registry;
  log: Logger;
  /** The active plan, with the sockets of the worker at a position, 0 and up without gaps. */
  planFor: (position: number) => Plan;
  /** Maximum number of connections of one worker. */
  ledgerRows: number;
  /** One Int32 cell: connections of the whole process. */
  open: Int32Array;
  /** One Int32 cell: blocks of connection ids that workers have taken. */
  ids: Int32Array;
  onAccess: (text: string, lines: number, pending: Int32Array) => void;
  /** Whole lines of the access log for a follower, and how many more are lost to it. */
  onFollowed: (follower: number, text: string, lost: number) => void;
  /** Called for each connection that died with its worker. */
  onLost: (line: AccessLine) => void;
  onOverBudget: () => void;
  /** Called when a worker has died, after its connections are reclaimed. */
  onDeath: () => void;
  /** Reports of failed backends, for passive health. */
  onFailures: (failures: BackendFailures[]) => void;
}

export type Answer = { ok: true } | { ok: false; reason: string };

/** The place of one worker. A thread that dies is replaced by another with the same index and rows of counters. */
export class WorkerSlot {
  /** The number in logs and metrics, and of the rows of counters. */
  readonly index: number;
  /** Its place among the workers that accept. */
  readonly position: number;
  readonly counters: Float64Array<SharedArrayBuffer>;
  readonly #logPending: Int32Array<SharedArrayBuffer>;
  readonly #options: SlotOptions;
  readonly #listening: Int32Array<SharedArrayBuffer>;
  readonly #ledgerMemory: SharedArrayBuffer;
  readonly #activityMemory = activityMemory();
  readonly activity = new ClientActivity(this.#activityMemory);
  #worker: Thread | null = null;
  #ledger: Ledger;
  state: "starting" | "running" | "retiring" | "gone" = "starting";
  restarts = 0;
  #startedMs = 0;
  /** When it stopped serving; Infinity while it serves. */
  #downSinceMs = performance.now();
  #deathsInARow = 0;
  /** The latest state at the last comparison. */
  #compared = { generation: -1, poolVersions: 0 };
  /** The thread's death was requested, so it does not count towards the restart back-off. */
  #restartRequested = false;
  /** The end of the connections of a thread that dies. */
  #lostEnd: "worker_lost" | "shutdown" = "worker_lost";
  /** Plans that the worker has not answered yet. */
  #pendingPlans: { generation: number; settle: (answer: Answer) => void; timer: ReturnType<typeof setTimeout> }[] = [];
  readonly #onGone: (() => void)[] = [];
  /** Requests to end connections that the worker has not answered yet, by number. */
  readonly #pendingEnds = new Map<
    number,
    { resolve: (count: number | null) => void; timer: ReturnType<typeof setTimeout> }
  >();
  #lastEndRequest = 0;

  constructor(index: number, position: number, options: SlotOptions) {
    this.index = index;
    this.position = position;
    this.#options = options;
    this.counters = options.registry.arena.float64(WORKER.size);
    this.#logPending = options.registry.arena.int32(1);
    this.#listening = options.registry.arena.int32(LISTENING_MAX);
    this.#ledgerMemory = ledgerMemory(options.ledgerRows);
    this.#ledger = new Ledger(this.#ledgerMemory);
  }

  /** Starts the thread with the active plan. Resolves when it serves, or with the reason why it does not. */
  start(): Promise<Answer> {
    const { spawn, planFor, open, ids } = this.#options;
    this.state = "starting";
    const plan = planFor(this.position);
    // Bun ends the whole process when a thread does not get its event loop.
    if (!hasDescriptors(THREAD_START + PER_WORKER + plan.sockets.length)) {
      return Promise.resolve({ ok: false, reason: NO_DESCRIPTORS });
    }
    this.#startedMs = performance.now();
    const worker = spawn();
    this.#worker = worker;
    worker.addEventListener("message", (event) => this.#onMessage((event as MessageEvent<FromWorker>).data));
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.#options.log.error("uncaught error in a worker", {
        worker: this.index,
        error: (event as ErrorEvent).message,
      });
    });
    worker.addEventListener("close", () => this.#onExit(worker));
    const shared = {
      ledger: this.#ledgerMemory,
      activity: this.#activityMemory,
      counters: this.counters,
      logPending: this.#logPending,
      listening: this.#listening,
    };
    this.#post({ kind: "start", index: this.index, open, ids, ...shared, plan });
    return this.#awaitAnswer(plan.generation);
  }

  /** Gives the worker a new plan; resolves with its answer. */
  apply(plan: Plan): Promise<Answer> {
    if (this.#worker === null) return Promise.resolve({ ok: true });
    this.#post({ kind: "apply", plan });
    return this.#awaitAnswer(plan.generation);
  }

  /** Sends the worker the new state of a pool. One that is being restarted gets it with its plan. */
  sendPoolState(state: PoolState): void {
    this.#post(state);
  }

  /** Tells the worker who follows the access log. One that is being restarted gets this with its plan. */
  sendFollowers(followers: Follower[]): void {
    this.#post({ kind: "follow", followers });
  }

  sendSettled(): void {
    this.#post({ kind: "settled" });
  }

  /** The connections of the worker, which writes there at any time. */
  get ledger(): Ledger {
    return this.#ledger;
  }

  /**
   * Ends the connections in these rows of the ledger that still have these ids. Resolves with their number: 0 if the worker dies before it
   * answers, null if it does not answer in time. In that case it ends them when it runs again.
   */
  endConnections(end: OrderedEnd, rows: Uint32Array, ids: Float64Array): Promise<number | null> {
    if (this.#worker === null) return Promise.resolve(0);
    const request = ++this.#lastEndRequest;
    const { promise, resolve } = Promise.withResolvers<number | null>();
    const timer = setTimeout(() => this.#settleEnd(request, null), END_ANSWER_MS);
    this.#pendingEnds.set(request, { resolve, timer });
    this.#post({ kind: "end", request, end, rows, ids });
    return promise;
  }

  #settleEnd(request: number, count: number | null): void {
    const pending = this.#pendingEnds.get(request);
    if (pending === undefined) return;
    this.#pendingEnds.delete(request);
    clearTimeout(pending.timer);
    pending.resolve(count);
  }

  /** Runs with a state of the pools that is older than this sum of their versions. One that starts gets the latest state. */
  isBehind(poolVersions: number): boolean {
    return this.state === "running" && this.counters[WORKER.poolVersions]! < poolVersions;
  }

  /**
   * Sends the plan again if the worker's state is older than the latest one at the last call: a message in transit has arrived by then,
   * so one was lost, which only a bug can cause. During a ramp the latest state is always in transit.
   */
  resendIfOutdated(generation: number, poolVersions: number): void {
    const { planFor, log } = this.#options;
    const { counters } = this;
    const before = this.#compared;
    this.#compared = { generation, poolVersions };
    const isOutdated =
      this.state === "running" &&
      this.#pendingPlans.length === 0 &&
      generation === before.generation &&
      (counters[WORKER.generation] !== generation || this.isBehind(before.poolVersions));
    if (!isOutdated) return;
    log.error("worker has an outdated config, it is sent again", { worker: this.index });
    void this.apply(planFor(this.position));
  }

  /**
   * Stops the worker. Its connections are ended by the deadline (on monotonicMs(), Infinity = when they end by themselves). The
   * process ends soon after the deadline, and does not wait for a worker that hangs. A second call brings the deadline forward.
   */
  stop(spreadFromMs: number, deadlineMs: number): Promise<void> {
    this.state = "retiring";
    if (this.#worker === null) {
      this.state = "gone";
      return Promise.resolve();
    }
    this.#post({ kind: "stop", spreadFromMs, deadlineMs });
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#onGone.push(resolve);
    const worker = this.#worker;
    const leftMs = deadlineMs - monotonicMs();
    if (leftMs === Infinity) return promise;
    const force = setTimeout(
      () => {
        this.#options.log.error("worker does not stop in time, its connections are reset", { worker: this.index });
        this.#lostEnd = "shutdown";
        this.#giveUp();
        // The end of the process ends the thread too. It is not terminated: the engine suspends a thread for that, and while one is
        // blocked in the kernel, the next garbage collection of this thread would wait for ever.
        setTimeout(() => this.#onExit(worker), EXIT_MS);
      },
      Math.max(0, leftMs) + STOP_GRACE_MS,
    );
    return promise.finally(() => clearTimeout(force));
  }

  /** Ends the thread at once and starts another. False = no thread runs now. */
  restart(): boolean {
    if (this.#worker === null) return false;
    this.#restartRequested = true;
    this.#kill();
    return true;
  }

  // Asks the thread to exit, and terminates it if it does not.
  #kill(): void {
    const worker = this.#worker;
    this.#post({ kind: "exit" });
    setTimeout(() => {
      if (worker !== null && this.#worker === worker) this.#terminate(worker);
    }, EXIT_MS);
  }

  // Interrupts the thread at any point. Its connections are reset. A connection that was just ending may be counted twice in the metrics.
  #terminate(worker: Thread): void {
    this.#giveUp();
    worker.terminate();
  }

  // Nothing that the thread still does reaches a client.
  #giveUp(): void {
    // Bun's loop accepts connections until the thread is gone, and they would not be served.
    for (const fd of this.#listening) {
      if (fd > 0) replaceListeningFd(fd);
    }
    this.#listening.fill(0);
    for (const row of this.#ledger.rowsInUse()) {
      for (const cell of [ROW.clientFd, ROW.backendFd]) {
        const fd = this.#ledger.words[row * ROW_WORDS + cell] ?? -1;
        if (fd >= 0) resetOnClose(fd);
      }
    }
  }

  /** Milliseconds since the worker last served; 0 or less while it serves. */
  get downMs(): number {
    return performance.now() - this.#downSinceMs;
  }

  /** Characters of its access log that are not written yet, in one Int32 cell. */
  get logPending(): Int32Array {
    return this.#logPending;
  }

  #post(message: ToWorker): void {
    this.#worker?.postMessage(message);
  }

  #awaitAnswer(generation: number): Promise<Answer> {
    const { promise, resolve } = Promise.withResolvers<Answer>();
    const timer = setTimeout(() => {
      this.#options.log.error("worker does not answer, it is restarted", { worker: this.index });
      this.#kill();
    }, ANSWER_MS);
    this.#pendingPlans.push({ generation, settle: resolve, timer });
    return promise;
  }

  // A worker answers plans in order, so an answer also settles the plans before it. The worker's death settles all.
  #settle(generation: number, answer: Answer): void {
    for (const plan of this.#pendingPlans.filter((plan) => plan.generation <= generation)) {
      clearTimeout(plan.timer);
      plan.settle(answer);
    }
    this.#pendingPlans = this.#pendingPlans.filter((plan) => plan.generation > generation);
  }

  #onMessage(message: FromWorker): void {
    switch (message.kind) {
      case "applied":
        if (this.state === "starting") this.state = "running";
        this.#downSinceMs = Infinity;
        this.#settle(message.generation, { ok: true });
        return;
      case "refused":
        this.#settle(message.generation, { ok: false, reason: message.reason });
        return;
      case "access":
        this.#options.onAccess(message.text, message.lines, this.#logPending);
        return;
      case "followed":
        this.#options.onFollowed(message.follower, message.text, message.lost);
        return;
      case "failures":
        this.#options.onFailures(message.failures);
        return;
      case "over_budget":
        this.#options.onOverBudget();
        return;
      case "ended":
        this.#settleEnd(message.request, message.count);
        return;
      case "debug":
        this.#options.log.debug(message.event, { worker: this.index, ...message.fields });
        return;
      case "crashed":
        this.#restartRequested = false;
        this.#options.log.error("worker crashed", { worker: this.index, reason: message.reason });
        return;
      case "stopped":
        this.state = "gone";
        this.#worker?.terminate();
    }
  }

  #onExit(worker: Thread): void {
    if (worker !== this.#worker) return;
    this.#worker = null;
    const lost = reclaim(
      { index: this.index, ledger: this.#ledger, counters: this.counters, end: this.#lostEnd },
      this.#options,
    );
    this.#options.onDeath();
    this.#logPending[0] = 0;
    for (const request of [...this.#pendingEnds.keys()]) this.#settleEnd(request, 0);
    if (this.state === "retiring" || this.state === "gone") {
      this.state = "gone";
      for (const resolve of this.#onGone) resolve();
      return;
    }
    const pauseMs = this.#pauseBeforeRestart();
    const fields = { worker: this.index, connections_lost: lost, restart_in_ms: pauseMs };
    if (this.#restartRequested) this.#options.log.info("worker ended on request", fields);
    else this.#options.log.error("worker died", fields);
    this.#restartRequested = false;
    this.state = "starting";
    this.#downSinceMs = performance.now();
    this.restarts++;
    // The next thread starts with the plan that is active then, so pending plans are settled.
    this.#settle(Infinity, { ok: true });
    setTimeout(() => void this.#startAgain(), pauseMs);
  }

  #pauseBeforeRestart(): number {
    if (this.#restartRequested) return RESTART_FIRST_MS;
    const lived = performance.now() - this.#startedMs;
    this.#deathsInARow = lived > STABLE_MS ? 1 : this.#deathsInARow + 1;
    return Math.min(RESTART_MAX_MS, RESTART_FIRST_MS * 2 ** (this.#deathsInARow - 1));
  }

  async #startAgain(): Promise<void> {
    if (this.state !== "starting") return;
    const answer = await this.start();
    if (answer.ok) {
      this.#options.log.info("worker started again", { worker: this.index });
      return;
    }
    this.#options.log.error("worker could not be started", {
      worker: this.index,
      reason: answer.reason,
      retry_in_ms: RESTART_MAX_MS,
    });
    setTimeout(() => {
      if (this.state !== "starting") return;
      // A thread that refused its plan serves nothing; its death starts the next one.
      if (this.#worker === null) void this.#startAgain();
      else this.#kill();
    }, RESTART_MAX_MS);
  }
}
