// The load: wrk for throughput, and the bench's own generators in load/, each in its own process beside the backend.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { smallPath } from "./backend.ts";
import { Process } from "./processes.ts";
import { cpuNanosecondsOfTree } from "./procstat.ts";
import type { Bench } from "./scenario.ts";
import type { Running } from "./site.ts";

/** A generator of load/ that has made its connections and waits for a command. */
export class Load {
  readonly #process: Process;

  constructor(
    bench: Bench,
    program: "bulk" | "exchange" | "handshakes" | "idle" | "latency",
    task: object,
    cpus = bench.playground.placement.load,
  ) {
    const file = join(import.meta.dir, "load", `${program}.ts`);
    this.#process = new Process({
      command: [process.execPath, file, JSON.stringify(task)],
      cpus,
    });
  }

  cpuNanoseconds(): number {
    return cpuNanosecondsOfTree(this.#process.pid);
  }

  /** Waits until it has made its connections and warmed up the proxy. */
  async ready(): Promise<void> {
    await this.#expect("ready");
  }

  /** Runs its next step, of this kind if there are several, and returns the result. */
  async step<T>(which = ""): Promise<T> {
    this.#process.say(`go ${which}`);
    return JSON.parse(await this.#process.line()) as T;
  }

  async stop(): Promise<void> {
    await this.#process.stop();
  }

  async #expect(word: string): Promise<void> {
    const line = await this.#process.line();
    if (line !== word) throw new Error(`a load generator said "${line}" instead of "${word}"`);
  }
}

/** Runs a task with a generator, which ends with the task. */
export async function withLoad<T>(load: Load, task: (load: Load) => Promise<T>): Promise<T> {
  try {
    await load.ready();
    return await task(load);
  } finally {
    await load.stop();
  }
}

export interface WrkTask {
  connections: number;
  seconds: number;
  /** Whether each request uses a new connection. */
  close: boolean;
  tls?: boolean;
}

export interface WrkResult {
  requests: number;
  perSecond: number;
}

/** One run of wrk through a proxy; fails if any request failed. */
export async function wrk(bench: Bench, { port }: Running, task: WrkTask): Promise<WrkResult> {
  const header = task.close ? ["-H", "Connection: close"] : [];
  const size = ["-t1", `-c${task.connections}`, `-d${task.seconds}s`];
  const url = `${task.tls === true ? "https" : "http"}://127.0.0.1:${port}${smallPath}`;
  const command = [...(task.tls === true ? settlingTls(bench) : []), "wrk", ...size, ...header, url];
  const text = await new Process({ command, cpus: bench.playground.placement.load }).output();
  const trouble = /Socket errors:.*|Non-2xx.*/.exec(text)?.[0];
  if (trouble !== undefined) throw new Error(`wrk: ${trouble}`);
  const requests = Number(/(\d+) requests in/.exec(text)?.[1]);
  const perSecond = Number(/Requests\/sec:\s+([\d.]+)/.exec(text)?.[1]);
  if (!(requests > 0 && perSecond > 0)) throw new Error(`wrk said: ${text.trim()}`);
  return { requests, perSecond };
}

/** Limits wrk to the same version, cipher and curve as the other generators, by OpenSSL's configuration file. */
function settlingTls(bench: Bench): string[] {
  const file = join(bench.playground.folder, "openssl.cnf");
  const settings = ["MinProtocol = TLSv1.3", "Ciphersuites = TLS_AES_256_GCM_SHA384", "Groups = X25519"];
  writeFileSync(file, `openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\n${settings.join("\n")}\n`);
  return ["env", `OPENSSL_CONF=${file}`];
}
