// The environment of the bench: one temporary folder, one backend for the whole run, and proxies that are started and stopped.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setUpBackend, smallPath } from "./backend.ts";
import { certificateIn } from "./certificates.ts";
import type { Contender } from "./contenders.ts";
import type { Placement } from "./machine.ts";
import { Process } from "./processes.ts";
import { cpuNanosecondsOfTree, memoryOfTree, treeOf, type Memory } from "./procstat.ts";

export interface Running {
  port: number;
  /** Milliseconds from spawn to the first answer through it; 0 without a proxy. */
  startMs: number;
  /** Its processes; empty without a proxy. */
  pids(): number[];
  cpuNanoseconds(): number;
  memory(): Memory;
  stop(): Promise<void>;
}

export class Playground {
  readonly folder = mkdtempSync(join(tmpdir(), "lb-bench-"));
  readonly placement: Placement;
  #backendPort = 0;

  constructor(placement: Placement) {
    this.placement = placement;
  }

  async startBackend(): Promise<void> {
    this.#backendPort = await freePort(backendPorts());
    const { files, command } = setUpBackend({ folder: this.folder, port: this.#backendPort });
    this.#write(this.folder, files);
    const backend = new Process({ command, cpus: this.placement.load });
    await answered(backend, this.#backendPort);
  }

  /** Starts a contender on a free port and waits until it passes on a request. */
  async start(contender: Contender): Promise<Running> {
    if (contender.setUp === undefined) return this.#bareBackend();
    const folder = join(this.folder, contender.name.replaceAll(" ", "-"));
    const port = await freePort();
    const certificate = contender.tls === undefined ? "" : certificateIn(this.folder, contender.tls);
    const { files, command } = contender.setUp({ folder, port, backendPort: this.#backendPort, certificate });
    this.#write(folder, files);
    const spawnedAt = performance.now();
    const proxy = new Process({ command, cpus: this.placement.proxy });
    await answered(proxy, port, contender.tls !== undefined);
    return {
      port,
      startMs: performance.now() - spawnedAt,
      pids: () => treeOf(proxy.pid),
      cpuNanoseconds: () => cpuNanosecondsOfTree(proxy.pid),
      memory: () => memoryOfTree(proxy.pid),
      stop: () => proxy.stop(),
    };
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }

  #bareBackend(): Running {
    const nothing = { pids: () => [], cpuNanoseconds: () => 0, memory: () => ({ total: 0, data: 0 }) };
    return { port: this.#backendPort, startMs: 0, ...nothing, stop: () => Promise.resolve() };
  }

  #write(folder: string, files: Record<string, string>): void {
    mkdirSync(folder, { recursive: true });
    for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  }
}

const startMsMax = 10_000;
const pollMs = 0.25;

/** Sends requests to the port until an answer comes. */
async function answered(server: Process, port: number, tls = false): Promise<void> {
  const deadline = performance.now() + startMsMax;
  while (performance.now() < deadline) {
    if (server.hasEnded) throw new Error(`it ended at its start: ${await server.complaint()}`);
    if (await answersOnce(port, tls)) return;
    await Bun.sleep(pollMs);
  }
  throw new Error(`no answer through port ${port} within ${startMsMax} ms`);
}

async function answersOnce(port: number, tls: boolean): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const giveUp = setTimeout(() => resolve(false), 1000);
  const connection = Bun.connect({
    hostname: "127.0.0.1",
    port,
    ...(tls ? { tls: { rejectUnauthorized: false } } : {}),
    socket: {
      open: (socket) => void socket.write(`GET ${smallPath} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n`),
      data: () => resolve(true),
      close: () => resolve(false),
      error: () => resolve(false),
      connectError: () => resolve(false),
    },
  });
  connection.catch(() => resolve(false));
  const answers = await promise;
  clearTimeout(giveUp);
  await connection.then((socket) => socket.terminate()).catch(() => undefined);
  return answers;
}

/**
 * The usual port range of servers: below the ports that the kernel gives to clients, for which lb checks whether a connect reached itself.
 */
function* backendPorts(): Generator<number> {
  for (let port = 20_000 + (process.pid % 5000); port < 30_000; port++) yield port;
}

async function freePort(candidates: Iterable<number> = [0]): Promise<number> {
  for (const candidate of candidates) {
    try {
      const listener = Bun.listen({ hostname: "127.0.0.1", port: candidate, socket: { data() {} } });
      const { port } = listener;
      listener.stop(true);
      return port;
    } catch {
      // The port is in use.
    }
  }
  throw new Error("no port is free");
}
