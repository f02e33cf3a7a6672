// The test's side of soak_peers.py: one Python process with all clients and backends of a soak.
import { spawn, type ChildProcess } from "node:child_process";
import { join } from "node:path";

export interface SoakListener {
  name: string;
  port: number;
  /** The protocols of its clients; "limited": all of them come from one address. */
  kind: "plain" | "tls" | "proxy" | "limited";
}

export interface SoakResult {
  /** Number of connections by protocol. */
  counts: { [what: string]: number };
  /** Each is an error: wrong bytes, or a truncated end that looks complete. */
  wrong: string[];
  /**
   * Connections that were reset although neither end wanted it. The addresses: the one that the log should have, and the client's own,
   * which the log has if the PROXY header was not read yet.
   */
  cuts: [listener: string, mode: string, addresses: string[]][];
}

export class SoakPeers {
  readonly #child: ChildProcess;
  readonly #waiting: ((result: never) => void)[] = [];

  constructor() {
    const program = join(import.meta.dirname, "soak_peers.py");
    this.#child = spawn("python3", [program], { stdio: ["pipe", "pipe", "inherit"] });
    this.#child.stdin!.on("error", () => undefined);
    let rest = "";
    this.#child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) this.#waiting.shift()?.((JSON.parse(line) as { result: never }).result);
    });
  }

  #call<T>(op: string, given: object = {}): Promise<T> {
    const { promise, resolve } = Promise.withResolvers<T>();
    this.#waiting.push(resolve);
    this.#child.stdin!.write(`${JSON.stringify({ op, ...given })}\n`);
    return promise;
  }

  /** A backend that listens; its port. */
  backend(name: string, options: { proxy: boolean; cert?: [string, string] }): Promise<number> {
    return this.#call("backend", { name, ...options });
  }

  /** It stops listening, and its connections are reset. */
  kill(name: string): Promise<void> {
    return this.#call("kill", { name });
  }

  revive(name: string): Promise<void> {
    return this.#call("revive", { name });
  }

  begin(given: { listeners: SoakListener[]; threads: number; seed: number }): Promise<void> {
    return this.#call("begin", given);
  }

  /** A listener that some of the clients use meanwhile; 0 = none. */
  extra(port: number): Promise<void> {
    return this.#call("extra", { port });
  }

  /** Resolves when the last connection has ended. */
  end(): Promise<SoakResult> {
    return this.#call("end");
  }

  /** The number of served connections, of this many at once from one address. */
  held(port: number, source: string, number: number): Promise<number> {
    return this.#call("held", { port, source, number });
  }

  [Symbol.dispose](): void {
    this.#child.kill("SIGKILL");
  }
}
