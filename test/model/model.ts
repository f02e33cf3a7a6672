// The model: the supervisor's records and workers, as real as possible in one thread, and a reference that only counts. `run` takes random
// steps, compares after each of them, and at the end waits until everything is at rest.
import { expect } from "vitest";
import type { Config } from "../../src/config/schema.ts";
import { BackendStates } from "../../src/supervisor/backend-states.ts";
import { listenerPlan, poolPlan } from "../../src/supervisor/plans.ts";
import { reclaim } from "../../src/supervisor/reclaim.ts";
import { Registry, type BackendRecord, type PoolRecord } from "../../src/supervisor/registry.ts";
import { claimed } from "../../src/shared/cells.ts";
import { ClientTable } from "../../src/shared/clients.ts";
import { CLAIM, Ledger, ledgerMemory, ROW, ROW_WORDS } from "../../src/shared/ledger.ts";
import { SharedQueue } from "../../src/shared/queue.ts";
import type { Backend } from "../../src/worker/pool.ts";
import { NOTHING_REPORTED } from "../../src/wire/agent.ts";
import { configOf } from "../support/config.ts";
import { plan } from "../support/plans.ts";
import type { Random } from "../support/random.ts";
import { recordingLog, type Said } from "../support/recording-log.ts";
import { ModelWorker, type Fault, type Mail, type ModelSession, type View } from "./worker.ts";

const WORKERS = 3;
const ROWS = 400;
const PROCESS_CAP = 60;
const NAMES = ["a", "b", "c", "d", "e", "f"];
const CLIENTS = 12;
const BALANCES = ["round_robin", "least_connections", "random_two", "least_latency", "source_hash", "first"];
/** Number of steps in the message of a failure. */
const TOLD = 40;

/** The reference's knowledge of a backend besides the file: from health checks, the agent and the operator. */
interface Facts {
  up: boolean;
  drained: boolean;
  percent: number;
  ordered: "ready" | "drain" | "maintenance";
  /** Replaces the file's weight while that is unchanged. */
  weight: { value: number; file: number } | null;
}

interface Slot {
  worker: ModelWorker;
  ledger: SharedArrayBuffer;
}

export class Model {
  readonly #random: Random;
  readonly #fault: Fault;
  readonly #registry = new Registry();
  readonly #states: BackendStates;
  readonly #open: Int32Array;
  readonly #slots: Slot[] = [];
  /** By the record's key, while the config names it. */
  #facts = new Map<string, Facts>();
  /** Every record that ever existed, to be counted at rest. */
  readonly #backends = new Map<number, BackendRecord>();
  readonly #steps: string[] = [];
  readonly #log = recordingLog();
  /** The first forbidden pick. */
  #brokenBy: string | null = null;

  constructor(random: Random, fault: Fault = "none") {
    this.#random = random;
    this.#fault = fault;
    this.#open = this.#registry.arena.int32(1);
    this.#registry.makeRoom(WORKERS);
    this.#states = new BackendStates({
      registry: this.#registry,
      facts: () => null,
      endConnections: () => undefined,
      send: (state) => {
        const pool = this.#registry.pools.find(({ id }) => id === state.pool)!;
        this.#send({ kind: "state", state, view: this.#viewOf(pool) });
      },
      log: this.#log.log,
    });
    this.#take(this.#randomConfig());
    for (let index = 0; index < WORKERS; index++) this.#slots.push(this.#startWorker(index, ledgerMemory(ROWS)));
  }

  /** Takes this many steps and comes to rest. Its errors name the last steps. */
  async run(steps: number): Promise<void> {
    try {
      for (let step = 0; step < steps; step++) {
        this.#step();
        await settle();
        this.#compare();
      }
      await this.#rest();
    } catch (cause) {
      const told = this.#steps.slice(-TOLD).map((step, i, all) => `${this.#steps.length - all.length + i}: ${step}`);
      throw new Error(`${cause instanceof Error ? cause.message : String(cause)}\nlast steps:\n${told.join("\n")}`, {
        cause,
      });
    } finally {
      this.#states.stop();
    }
  }

  // ---------------------------------------------------------------- steps

  #step(): void {
    const random = this.#random;
    const { worker } = random.pick(this.#slots);
    const sessions = [...worker.sessions];
    const chance = random.below(100);
    if (chance < 40) {
      const client = random.below(CLIENTS);
      this.#note(`client ${client} comes to worker ${worker.index}`);
      worker.arrive(client);
    } else if (chance < 62) {
      if (sessions.length === 0) return;
      const session = random.pick(sessions);
      this.#note(`the session in row ${session.row} of worker ${worker.index} ends`);
      session.leave();
    } else if (chance < 70) {
      const dialing = sessions.filter(({ backend }) => backend !== null);
      if (dialing.length === 0) return;
      const session = random.pick(dialing);
      this.#note(`the attempt in row ${session.row} of worker ${worker.index} fails`);
      session.fail();
    } else if (chance < 84) {
      this.#note(`worker ${worker.index} gets a message (${worker.mail[0]?.kind ?? "there is none"})`);
      worker.deliver();
    } else if (chance < 88) {
      this.#note(`worker ${worker.index} ticks`);
      worker.tick();
    } else if (chance < 96) {
      this.#changeBackend();
    } else if (chance < 98) {
      this.#reload();
    } else {
      this.#kill(worker.index);
    }
  }

  #changeBackend(): void {
    const random = this.#random;
    const pool = random.pick(this.#registry.pools);
    const backend = random.pick(pool.backends);
    const facts = this.#facts.get(backend.key)!;
    const kind = random.below(3);
    if (kind === 0) {
      facts.up = !facts.up;
      this.#note(`${backend.name} goes ${facts.up ? "up" : "down"}`);
      this.#states.healthChanged(backend.id, facts.up, "the model says so");
    } else if (kind === 1) {
      facts.drained = random.oneIn(2);
      facts.percent = random.pick([0, 50, 100]);
      this.#note(`the agent of ${backend.name} says ${facts.drained ? "drain" : "ready"}, ${facts.percent} %`);
      const state = facts.drained ? "drain" : "ready";
      this.#states.agentReported(backend.id, { ...NOTHING_REPORTED, state, percent: facts.percent });
    } else {
      this.#order(pool, backend, facts);
    }
  }

  #order(pool: PoolRecord, backend: BackendRecord, facts: Facts): void {
    const random = this.#random;
    const { name, weight: file } = backend.config;
    const target = { name, address: null };
    const weight = random.oneIn(3) ? random.pick([0, 3, null]) : undefined;
    if (weight === undefined) facts.ordered = random.pick(["ready", "drain", "maintenance"] as const);
    else facts.weight = weight === null ? null : { value: weight, file };
    this.#note(`an operator sets ${name} to ${weight === undefined ? facts.ordered : `weight ${weight}`}`);
    this.#states.ordered(pool, [backend], {
      give: () => {
        if (weight === undefined) pool.changes.setState(target, facts.ordered, null);
        else pool.changes.setWeight(target, weight, file);
      },
      endsEjection: false,
    });
  }

  #reload(): void {
    const config = this.#randomConfig();
    const before = this.#registry.hold();
    const facts = this.#facts;
    this.#take(config);
    if (this.#random.oneIn(4)) {
      this.#note("a reload is refused by a worker, and undone");
      this.#registry.commit(before);
      this.#facts = facts;
    } else {
      this.#registry.changes.follow(config);
      this.#note(`a reload: ${this.#describe()}`);
    }
    this.#registry.release();
    this.#sendPlans();
    this.#states.followConfig();
  }

  #kill(index: number): void {
    const { worker, ledger } = this.#slots[index]!;
    this.#note(`worker ${index} dies with ${worker.sessions.size} sessions`);
    worker.die();
    const lost = reclaim(
      { index, ledger: new Ledger(ledger), counters: worker.host.counters, end: "worker_lost" },
      { registry: this.#registry, log: this.#log.log, open: this.#open, onLost: () => undefined },
    );
    expect(lost).toBe(worker.sessions.size);
    worker.sessions.clear();
    this.#slots[index] = this.#startWorker(index, ledger);
  }

  #startWorker(index: number, ledger: SharedArrayBuffer): Slot {
    const worker = new ModelWorker({ index, ledger, open: this.#open, fault: this.#fault }, this.#checkPick);
    worker.mail.push(this.#planMail());
    worker.deliver();
    return { worker, ledger };
  }

  // ---------------------------------------------------------------- the supervisor

  #take(config: Config): void {
    this.#registry.commit(this.#registry.draft(this.#registry.changes.appliedTo(config), PROCESS_CAP, () => []));
    const known = this.#facts;
    this.#facts = new Map();
    for (const { backends } of this.#registry.pools) {
      for (const backend of backends) {
        this.#backends.set(backend.id, backend);
        const facts = known.get(backend.key) ?? {
          up: true,
          drained: false,
          percent: 100,
          ordered: "ready" as const,
          weight: null,
        };
        const isSame = facts.weight?.file === backend.config.weight;
        this.#facts.set(backend.key, { ...facts, weight: isSame ? facts.weight : null });
      }
    }
  }

  #planMail(): Mail {
    const { listeners, pools } = this.#registry;
    return {
      kind: "plan",
      plan: plan({
        listeners: listeners.map((listener) => listenerPlan(listener, pools)),
        pools: pools.map(poolPlan),
        maxConnections: PROCESS_CAP,
      }),
      views: new Map(pools.map((pool) => [pool.id, this.#viewOf(pool)])),
    };
  }

  #sendPlans(): void {
    this.#send(this.#planMail());
  }

  #send(mail: Mail): void {
    for (const { worker } of this.#slots) worker.mail.push(mail);
  }

  #randomConfig(): Config {
    const random = this.#random;
    const backends = NAMES.filter(() => !random.oneIn(4)).map(
      (name, i) =>
        `{ address = "10.0.0.${1 + NAMES.indexOf(name)}:80", name = "${name}", max_connections = ${random.pick([0, 1, 2, 3, 5])}, ` +
        `weight = ${random.pick([0, 1, 1, 2])}, backup = ${i > 0 && random.oneIn(4)} }`,
    );
    if (backends.length === 0) return this.#randomConfig();
    const listener = (name: string, port: number) => `
      [listeners.${name}]
      bind = "127.0.0.1:${port}"
      pool = "app"
      max_connections = ${random.pick([0, 10, 25])}
      max_connections_per_client = ${random.pick([0, 3, 6])}`;
    return configOf(`
      ${listener("one", 1001)}
      ${random.oneIn(2) ? listener("two", 1002) : ""}
      [pools.app]
      backends = [${backends.join(", ")}]
      balance = "${random.pick(BALANCES)}"
      retries = ${random.below(3)}
      on_down = "${random.pick(["keep", "reset"])}"
      panic_threshold = ${random.pick([0, 0, 50, 100])}
      queue = { size = ${random.pick([0, 3, 8])}, timeout = "10s" }
      health.agent_port = 9000
    `);
  }

  #describe(): string {
    return this.#registry.pools
      .map(({ config, backends }) => {
        const list = backends.map(({ name, config: { max_connections, weight, backup } }) =>
          [name, `cap ${max_connections}`, `weight ${weight}`, backup ? "backup" : ""].join(" ").trim(),
        );
        return `${config.balance}, queue ${config.queue.size}, panic ${config.panic_threshold}: ${list.join(", ")}`;
      })
      .join("; ");
  }

  // ---------------------------------------------------------------- the reference

  /** What a worker with this state may do, by a look at each backend. */
  #viewOf({ config, backends }: PoolRecord): View {
    const offered = (backend: BackendRecord): boolean => {
      const { drained, percent, ordered, weight } = this.#facts.get(backend.key)!;
      return !drained && ordered === "ready" && percent * (weight?.value ?? backend.config.weight) > 0;
    };
    const isUp = (backend: BackendRecord): boolean => offered(backend) && this.#facts.get(backend.key)!.up;
    const someUp = backends.some(isUp);
    const tiers = [false, true].map((backup) => {
      const all = backends.filter((backend) => backend.config.backup === backup && offered(backend));
      const up = all.filter(isUp);
      const panics = up.length * 100 < config.panic_threshold * all.length && (up.length > 0 || !someUp);
      return (panics ? all : up).map(({ id }) => id);
    });
    return {
      tiers: tiers.filter((ids) => ids.length > 0),
      caps: new Map(backends.map(({ id, config: { max_connections } }) => [id, max_connections])),
      queueSize: config.queue.size,
    };
  }

  // At the moment of the pick: the place is claimed already.
  readonly #checkPick = ({ worker, pool, tried, backend: before }: ModelSession, { id }: Backend): void => {
    const { tiers, caps } = worker.views.get(pool!.id)!;
    const name = `${this.#backends.get(id)?.name} (${id})`;
    const failed = tried ?? [];
    const tier = tiers.find((ids) => !ids.every((one) => failed.includes(one))) ?? [];
    if (!tier.includes(id))
      this.#broken(`worker ${worker.index} picked ${name}, which it must not: ${JSON.stringify(tiers)}`);
    if (failed.includes(id)) this.#broken(`${name} was picked again`);
    const cap = caps.get(id)!;
    const held = this.#sessions().filter(({ backend }) => backend?.id === id).length + (before?.id === id ? 0 : 1);
    if (cap > 0 && held > cap) this.#broken(`${name} has ${held} connections, and may have ${cap}`);
  };

  // A pick may come from a queue, where a thrown error would be lost.
  #broken(what: string): void {
    this.#brokenBy ??= what;
  }

  #sessions(): ModelSession[] {
    return this.#slots.flatMap(({ worker }) => [...worker.sessions]);
  }

  /** Every count in shared memory equals the reference's. */
  #compare(): void {
    if (this.#brokenBy !== null) throw new Error(this.#brokenBy);
    const sessions = this.#sessions();
    expect(claimed(this.#open), "connections of the process").toBe(sessions.length);
    for (const { id, name, cells } of this.#registry.listenerById.values()) {
      const here = sessions.filter(({ listener }) => listener.plan.id === id).length;
      expect(claimed(cells.open), `connections of listener ${name}`).toBe(here);
    }
    for (const { id, name, cells } of this.#backends.values()) {
      if (!this.#registry.backendById.has(id)) continue;
      const here = sessions.filter(({ backend }) => backend?.id === id).length;
      expect(claimed(cells.open), `connections of backend ${name} (${id})`).toBe(here);
    }
    for (const { id, queue } of this.#registry.poolById.values()) {
      if (queue === null) continue;
      const here = sessions.filter((session) => session.isWaiting && session.pool?.id === id).length;
      expect(new SharedQueue(queue).waiting, "connections in the queue").toBe(here);
    }
    for (const { clients } of this.#registry.listenerById.values()) {
      if (clients !== null) this.#compareClients(new ClientTable(clients), clients, sessions);
    }
  }

  #compareClients(table: ClientTable, memory: SharedArrayBuffer, sessions: readonly ModelSession[]): void {
    const entries = new Map<number, number>();
    for (const { host, row, listener } of sessions) {
      if (listener.plan.clients !== memory || (host.words[row * ROW_WORDS]! & CLAIM.client) === 0) continue;
      const entry = host.words[row * ROW_WORDS + ROW.clientEntry]!;
      entries.set(entry, (entries.get(entry) ?? 0) + 1);
    }
    for (const [entry, count] of entries) expect(table.open(entry), `connections of entry ${entry}`).toBe(count);
  }

  /** Every worker has the current state; no connection waits while there is a place; then all end, and every count is zero. */
  async #rest(): Promise<void> {
    this.#note("everything comes to rest");
    for (const { worker } of this.#slots) while (worker.mail.length > 0) worker.deliver();
    for (let round = 0; round < 20; round++) {
      for (const { worker } of this.#slots) worker.tick();
      await settle();
    }
    this.#compare();
    for (const pool of this.#registry.pools) {
      const { tiers } = this.#viewOf(pool);
      const isFree = (id: number): boolean => {
        const { cells, config } = this.#registry.backendById.get(id)!;
        return config.max_connections === 0 || claimed(cells.open) < config.max_connections;
      };
      for (const { isWaiting, pool: own, tried } of this.#sessions()) {
        if (!isWaiting || own?.id !== pool.id) continue;
        const left = tiers
          .map((ids) => ids.filter((id) => tried?.includes(id) !== true))
          .find(({ length }) => length > 0);
        expect((left ?? []).filter(isFree), "free places while a connection waits that could have them").toEqual([]);
      }
    }
    for (const session of this.#sessions().toReversed()) session.finish("shutdown", "lb");
    await settle();
    for (const session of this.#sessions()) session.finish("shutdown", "lb");
    await settle();
    expect(this.#sessions()).toEqual([]);
    this.#compare();
    const isFault = ({ level, event }: Said): boolean => level === "error" && event !== "pool has no usable backend";
    expect(this.#log.said.filter(isFault)).toEqual([]);
    // Records that are in no config are forgotten: nothing counts on them.
    const later = performance.now() + 3_600_000;
    this.#registry.sweep(later);
    this.#registry.sweep(later + 3_600_000);
    const current = this.#registry.pools.flatMap(({ backends }) => backends.map(({ id }) => id));
    expect([...this.#registry.backendById.keys()].toSorted((a, b) => a - b)).toEqual(current.toSorted((a, b) => a - b));
  }

  #note(step: string): void {
    this.#steps.push(step);
  }
}

/** Microtasks, and messages between the threads of this process. */
async function settle(): Promise<void> {
  for (let i = 0; i < 2; i++) await new Promise((resolve) => void setImmediate(resolve));
}
