// The worker threads: started, given plans, started again when they die, retired when there are to be fewer. What a dead
// worker held in shared memory is given back here, from its ledger.
import type { FromWorker, Plan, PoolState, ToWorker } from "../messages.ts";
import { LISTENING_MAX } from "../messages.ts";
import { lineOfRow, type AccessLine } from "../observe/access-line.ts";
import { monotonicMs } from "../platform/clock.ts";
import { hasDescriptors, resetOnClose, replaceListeningFd } from "../platform/sockets.ts";
import { giveBack } from "../shared/cells.ts";
import { ClientTable } from "../shared/clients.ts";
import { BACKEND, endCell, LISTENER, WORKER } from "../shared/counters.ts";
import { CLAIM, Ledger, ledgerMemory, ROW, ROW_WORDS } from "../shared/ledger.ts";
import { PER_WORKER, THREAD_START } from "./budget.ts";
import type { Log } from "./log.ts";
import type { Registry } from "./registry.ts";

/** A worker that has not answered a plan by then is taken for hung and is started anew. */
const ANSWER_MS = 10_000;
/** A worker that is told to exit at once and has not by then is ended by force. */
const EXIT_MS = 250;
/** A worker that has not stopped so long after its deadline is ended by force. */
const DEAF_MS = 1000;
/** A worker that dies again and again is started again after ever longer pauses. */
const RESTART_FIRST_MS = 10;
const RESTART_MAX_MS = 5000;
/** A worker found behind so many times in a row has lost something: a message on its way is there by then. */
const BEHIND_TIMES = 2;
/** Having lived so long, a worker's death counts as the first again. */
const STABLE_MS = 10_000;

const NO_DESCRIPTORS =
  "the open-files limit leaves too few for the start of a worker; raise it (ulimit -n, LimitNOFILE of systemd)";

export interface FleetOptions {
  spawn: () => Worker;
  registry: Registry;
  log: Log;
  /** The plan in force, with the sockets of the worker at a position, 0 and up without gaps. */
  planFor: (position: number) => Plan;
  /** Connections that one worker may have at once. */
  ledgerRows: number;
  /** One Int32 cell: connections of the whole process. */
  open: Int32Array;
  /** One Int32 cell: blocks of connection ids that workers have taken. */
  ids: Int32Array;
  onAccess: (text: string, lines: number, pending: Int32Array) => void;
  /** A connection that died with its worker. */
  onLost: (line: AccessLine) => void;
  onOverBudget: () => void;
}

type Answer = { ok: true } | { ok: false; reason: string };

/** One worker thread after another in the same place: same index, same rows of counters. */
export class WorkerSlot {
  /** Its number in logs and metrics, and of its rows of counters. */
  readonly index: number;
  /** Its place among the workers that accept. */
  readonly position: number;
  readonly counters: Float64Array<SharedArrayBuffer>;
  readonly #logPending: Int32Array<SharedArrayBuffer>;
  readonly #options: FleetOptions;
  readonly #listening: Int32Array<SharedArrayBuffer>;
  readonly #ledgerMemory: SharedArrayBuffer;
  #worker: Worker | null = null;
  #ledger: Ledger;
  state: "starting" | "running" | "retiring" | "gone" = "starting";
  restarts = 0;
  #startedMs = 0;
  /** Since when it does not serve; Infinity while it does. */
  #downSinceMs = performance.now();
  #deathsInARow = 0;
  /** Times in a row that it was found behind. */
  #behind = 0;
  /** The thread's death is on request and tells nothing of its health. */
  #restartAsked = false;
  /** How the connections of a thread that dies have ended. */
  #lostEnd: "worker_lost" | "shutdown" = "worker_lost";
  /** Plans that the worker has not answered yet. */
  #asked: { generation: number; settle: (answer: Answer) => void; timer: ReturnType<typeof setTimeout> }[] = [];
  readonly #onGone: (() => void)[] = [];

  constructor(index: number, position: number, options: FleetOptions) {
    this.index = index;
    this.position = position;
    this.#options = options;
    this.counters = options.registry.arena.float64(WORKER.size);
    this.#logPending = options.registry.arena.int32(1);
    this.#listening = options.registry.arena.int32(LISTENING_MAX);
    this.#ledgerMemory = ledgerMemory(options.ledgerRows);
    this.#ledger = new Ledger(this.#ledgerMemory);
  }

  /** Starts the thread with the plan in force; resolves when it serves, or says why it does not. */
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
    worker.addEventListener("message", (event) => this.#hear(event.data as FromWorker));
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.#options.log.error("worker failed", { worker: this.index, error: event.message });
    });
    worker.addEventListener("close", () => this.#died(worker));
    const shared = {
      ledger: this.#ledgerMemory,
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

  /** Gives the worker the new state of a pool. One that is to start again gets it with its plan. */
  tell(state: PoolState): void {
    this.#post(state);
  }

  /** Gives the worker the plan again if it has been behind since the last call. Without a fault of ours it never is. */
  compare(generation: number, poolVersions: number): void {
    const { planFor, log } = this.#options;
    const { counters } = this;
    const isBehind =
      this.state === "running" &&
      this.#asked.length === 0 &&
      (counters[WORKER.generation] !== generation || counters[WORKER.poolVersions] !== poolVersions);
    this.#behind = isBehind ? this.#behind + 1 : 0;
    if (this.#behind < BEHIND_TIMES) return;
    this.#behind = 0;
    log.error("worker is behind and gets the plan again", { worker: this.index });
    void this.apply(planFor(this.position));
  }

  /**
   * Lets the worker end its connections by the deadline (on monotonicMs(), Infinity = when they end); then it is gone. A worker
   * that hangs is ended by force soon after the deadline. A second call brings the deadline forward.
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
        this.#options.log.error("worker does not stop", { worker: this.index });
        this.#lostEnd = "shutdown";
        this.#terminate(worker);
        // A thread that the kernel holds does not end before the process does, which must not wait for it.
        setTimeout(() => this.#died(worker), EXIT_MS);
      },
      Math.max(0, leftMs) + DEAF_MS,
    );
    return promise.finally(() => clearTimeout(force));
  }

  /** Ends the thread at once and starts another, on request. False = there is no thread now. */
  restart(): boolean {
    if (this.#worker === null) return false;
    this.#restartAsked = true;
    this.#kill();
    return true;
  }

  // By the thread's own doing, or by force when it does not listen.
  #kill(): void {
    const worker = this.#worker;
    this.#post({ kind: "exit" });
    setTimeout(() => {
      if (worker !== null && this.#worker === worker) this.#terminate(worker);
    }, EXIT_MS);
  }

  // Stops the thread in the middle of whatever it does. Its connections are reset; one that was just ending may be counted
  // twice in the metrics, and its place in a cap may stay taken.
  #terminate(worker: Worker): void {
    // Bun's loop goes on accepting until the thread is gone, with nobody there to serve what it takes from the queue.
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
    worker.terminate();
  }

  /** Milliseconds since the worker last served; 0 or less while it does. */
  get downMs(): number {
    return performance.now() - this.#downSinceMs;
  }

  /** Characters of its access log were written. */
  get logPending(): Int32Array {
    return this.#logPending;
  }

  #post(message: ToWorker): void {
    this.#worker?.postMessage(message);
  }

  #awaitAnswer(generation: number): Promise<Answer> {
    const { promise, resolve } = Promise.withResolvers<Answer>();
    const timer = setTimeout(() => {
      this.#options.log.error("worker does not answer", { worker: this.index });
      this.#kill();
    }, ANSWER_MS);
    this.#asked.push({ generation, settle: resolve, timer });
    return promise;
  }

  // A worker answers its plans in their order, so an answer settles those before it too; its death settles all.
  #settle(generation: number, answer: Answer): void {
    for (const asked of this.#asked.filter((asked) => asked.generation <= generation)) {
      clearTimeout(asked.timer);
      asked.settle(answer);
    }
    this.#asked = this.#asked.filter((asked) => asked.generation > generation);
  }

  #hear(message: FromWorker): void {
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
      case "over_budget":
        this.#options.onOverBudget();
        return;
      case "debug":
        this.#options.log.debug(message.event, { worker: this.index, ...message.fields });
        return;
      case "crashed":
        this.#restartAsked = false;
        this.#options.log.error("worker crashed", { worker: this.index, reason: message.reason });
        return;
      case "stopped":
        this.state = "gone";
        this.#worker?.terminate();
    }
  }

  #died(worker: Worker): void {
    if (worker !== this.#worker) return;
    this.#worker = null;
    const lost = this.#reclaimAll();
    if (this.state === "retiring" || this.state === "gone") {
      this.state = "gone";
      for (const resolve of this.#onGone) resolve();
      return;
    }
    const pauseMs = this.#pauseBeforeRestart();
    const fields = { worker: this.index, connections_lost: lost, restart_in_ms: pauseMs };
    if (this.#restartAsked) this.#options.log.info("worker ended on request", fields);
    else this.#options.log.error("worker died", fields);
    this.#restartAsked = false;
    this.state = "starting";
    this.#downSinceMs = performance.now();
    this.restarts++;
    // The death is the answer to a plan that was under way: the next start takes the plan in force then.
    this.#settle(Infinity, { ok: true });
    setTimeout(() => void this.#startAgain(), pauseMs);
  }

  #pauseBeforeRestart(): number {
    if (this.#restartAsked) return RESTART_FIRST_MS;
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
      // A thread that has refused its plan serves nothing; its death starts the next one.
      if (this.#worker === null) void this.#startAgain();
      else this.#kill();
    }, RESTART_MAX_MS);
  }

  // Gives back what the dead worker's connections claimed, and writes their lines. Nobody else touches its rows now.
  #reclaimAll(): number {
    const { words } = this.#ledger;
    let lost = 0;
    for (const row of this.#ledger.rowsInUse()) {
      this.#lose(row, row * ROW_WORDS);
      words[row * ROW_WORDS] = 0;
      lost++;
    }
    words[0] = 0;
    this.#logPending[0] = 0;
    this.counters[WORKER.tickDueMs] = 0;
    return lost;
  }

  // What is out of balance here has cost a worker already; the supervisor goes on.
  #reclaim(giveBack: () => void): void {
    try {
      giveBack();
    } catch (error) {
      this.#options.log.error("a lost connection's claim is not there", { worker: this.index, error: String(error) });
    }
  }

  #lose(row: number, at: number): void {
    const { registry, open, onLost } = this.#options;
    const { words } = this.#ledger;
    const claims = words[at]!;
    const listener = registry.listenerById.get(words[at + ROW.listener]!);
    const backend = registry.backendById.get(words[at + ROW.backend]!);
    if (claims & CLAIM.process) this.#reclaim(() => giveBack(open));
    if (listener !== undefined) {
      if (claims & CLAIM.listener) this.#reclaim(() => giveBack(listener.cells.open));
      const { clients } = listener;
      if (claims & CLAIM.client && clients)
        this.#reclaim(() => new ClientTable(clients).release(words[at + ROW.clientEntry]!));
      listener.cells.counters[this.index * LISTENER.size + endCell(this.#lostEnd, "lb")]!++;
    }
    if (backend !== undefined) {
      if (claims & CLAIM.backend) this.#reclaim(() => giveBack(backend.cells.open));
      backend.cells.counters[this.index * BACKEND.size + BACKEND.ended]!++;
    }
    this.counters[WORKER.ended]!++;
    onLost(
      lineOfRow(this.#ledger, row, {
        listener: listener?.name ?? "",
        sni: this.#ledger.sni(row),
        tls: "",
        clientCert: "",
        pool: registry.poolById.get(words[at + ROW.pool]!)?.name ?? "",
        backend: backend?.name ?? "",
        connectMs: -1,
        worker: this.index,
        end: this.#lostEnd,
        endBy: "lb",
        error: "",
      }),
    );
  }
}

/** All the workers. */
export class Fleet {
  readonly #options: FleetOptions;
  slots: WorkerSlot[] = [];
  /** Slots that serve no socket any more, while their connections last. */
  retiring: WorkerSlot[] = [];

  constructor(options: FleetOptions) {
    this.#options = options;
  }

  /** Starts further workers up to `count`. The error of the first that cannot serve, or null. */
  async growTo(count: number): Promise<string | null> {
    const missing = count - this.slots.length;
    if (missing > 0) {
      const each = THREAD_START + PER_WORKER + this.#options.planFor(this.slots.length).sockets.length;
      if (!hasDescriptors(missing * each)) {
        return `${missing} more workers need ${missing * each} descriptors: ${NO_DESCRIPTORS}`;
      }
    }
    const fresh: WorkerSlot[] = [];
    while (this.slots.length < count) {
      const slot = new WorkerSlot(this.#freeIndex(), this.slots.length, this.#options);
      this.slots.push(slot);
      fresh.push(slot);
    }
    for (const { index } of fresh) this.#options.registry.makeRoom(index + 1);
    const answers = await Promise.all(fresh.map((slot) => slot.start()));
    return firstRefusal(answers);
  }

  /** Every worker takes the plan in force; the reason of the first that does not, or null. */
  async applyAll(): Promise<string | null> {
    const answers = await Promise.all(this.slots.map((slot) => slot.apply(this.#options.planFor(slot.position))));
    return firstRefusal(answers);
  }

  /** Retires the workers from `count` on. The others must serve their sockets already. */
  shrinkTo(count: number): void {
    for (const slot of this.slots.splice(count)) {
      this.retiring.push(slot);
      void slot.stop(Infinity, Infinity).then(() => {
        this.retiring = this.retiring.filter((other) => other !== slot);
      });
    }
  }

  /** Tells all workers the whole new state of one pool. */
  tell(state: PoolState): void {
    for (const slot of [...this.slots, ...this.retiring]) slot.tell(state);
  }

  /** A worker that has stayed behind the plan and the pools in force is given the plan again. Call it every second or so. */
  compare(generation: number): void {
    const { poolVersions } = this.#options.registry;
    for (const slot of this.slots) slot.compare(generation, poolVersions);
  }

  /** All workers end; resolves when the last is gone. */
  async stopAll(spreadFromMs: number, deadlineMs: number): Promise<void> {
    await Promise.all([...this.slots, ...this.retiring].map((slot) => slot.stop(spreadFromMs, deadlineMs)));
  }

  // A retired worker that is still busy keeps its index: two writers of one row would lose counts.
  #freeIndex(): number {
    const taken = new Set([...this.slots, ...this.retiring].map((slot) => slot.index));
    let index = 0;
    while (taken.has(index)) index++;
    return index;
  }
}

function firstRefusal(answers: readonly Answer[]): string | null {
  for (const answer of answers) if (!answer.ok) return answer.reason;
  return null;
}
