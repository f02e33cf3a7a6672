// The openssl program as the peer of a TLS connection: s_client and s_server, and their output.
import { spawn, type ChildProcess } from "node:child_process";
import { freePort } from "./lb.ts";

const WAIT_MS = 30_000;

const alive = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of alive) child.kill("SIGKILL");
});

/** A process whose output is read as it comes. */
export class Openssl {
  /** stdout and stderr together, in order. */
  output = "";
  readonly exited: Promise<number | null>;
  readonly #child: ChildProcess;
  #ended = false;
  #wake = Promise.withResolvers<void>();

  constructor(args: string[]) {
    const child = spawn("openssl", args, { stdio: ["pipe", "pipe", "pipe"] });
    this.#child = child;
    alive.add(child);
    const { promise, resolve } = Promise.withResolvers<number | null>();
    this.exited = promise;
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding("latin1").on("data", (text: string) => {
        this.output += text;
        this.#awaken();
      });
    // Writing to a process that has exited is not an error.
    child.stdin.on("error", () => undefined);
    child.once("close", (code) => {
      alive.delete(child);
      this.#ended = true;
      resolve(code);
      this.#awaken();
    });
  }

  send(text: string): void {
    this.#child.stdin?.write(text, "latin1");
  }

  /** The end of its input: s_client closes with close_notify. */
  finish(): void {
    this.#child.stdin?.end();
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  /** Waits until the output matches, or the process has ended. */
  async until(what: RegExp, ms = WAIT_MS): Promise<boolean> {
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => late.reject(new Error(`openssl did not say ${what}:\n${this.output}`)), ms);
    try {
      while (!what.test(this.output)) {
        if (this.#ended) return false;
        await Promise.race([this.#wake.promise, late.promise]);
      }
      return true;
    } finally {
      clearTimeout(timer);
    }
  }

  [Symbol.dispose](): void {
    this.kill();
  }

  #awaken(): void {
    this.#wake.resolve();
    this.#wake = Promise.withResolvers<void>();
  }
}

/** What s_client reports about one connection. */
export interface Said {
  /** Its source address: without -bind an address of its own, which identifies its line of the access log. */
  from: string;
  /** The handshake was complete, and the sent line came back. */
  echoed: boolean;
  /** "CN = a.example" of the server's certificate; null = none was seen. */
  subject: string | null;
  /** "RSA", "RSA-PSS" or "ECDSA", by what the server has signed with. */
  signature: string | null;
  version: string | null;
  cipher: string | null;
  alpn: string | null;
  reused: boolean;
  /** The number of the alert that ended it. */
  alert: number | null;
  /** 0 = the server's certificate was verified. */
  verified: number | null;
  output: string;
}

let clients = 0;

/** One s_client that sends a line, waits for its echo, and closes; or that fails. */
export async function sClient(port: number, ...args: string[]): Promise<Said> {
  const number = ++clients;
  const given = args.indexOf("-bind");
  const from = given < 0 ? `127.77.${number >> 8}.${number & 255}` : args[given + 1]!.replace(/:\d+$/, "");
  using client = new Openssl(["s_client", "-connect", `127.0.0.1:${port}`, "-bind", `${from}:0`, ...args]);
  const line = `ping-${port}`;
  client.send(`${line}\n`);
  // Its own lines are buffered and the server's output is not, so the echo may be in the middle of one.
  const echoed = await client.until(new RegExp(line));
  client.finish();
  await client.exited;
  const { output } = client;
  const found = (pattern: RegExp): string | null => pattern.exec(output)?.[1] ?? null;
  const numeral = (pattern: RegExp): number | null => {
    const text = found(pattern);
    return text === null ? null : Number(text);
  };
  const [, version = null, cipher = null] = /^(?:New|Reused), (TLSv[\d.]+), Cipher is (\S+)/m.exec(output) ?? [];
  return {
    from,
    echoed,
    subject: found(/^subject=(.*)$/m),
    signature: found(/^Peer signature type: (\S+)/m),
    version: found(/^ +Protocol +: (TLSv[\d.]+)/m) ?? version,
    cipher,
    alpn: found(/^ALPN protocol: (.*)$/m),
    reused: /^Reused, /m.test(output),
    alert: numeral(/SSL alert number (\d+)/),
    verified: numeral(/^Verify return code: (\d+)/m) ?? numeral(/^ +Verify return code: (\d+)/m),
    output,
  };
}

/** An s_server that sends each line back reversed. It serves one connection at a time. */
export class SServer {
  readonly port: number;
  readonly #process: Openssl;

  private constructor(port: number, process: Openssl) {
    this.port = port;
    this.#process = process;
  }

  static async start(...args: string[]): Promise<SServer> {
    const port = await freePort();
    const process = new Openssl(["s_server", "-accept", `127.0.0.1:${port}`, "-rev", ...args]);
    await process.until(/ACCEPT/);
    return new SServer(port, process);
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  get output(): string {
    return this.#process.output;
  }

  until(what: RegExp): Promise<boolean> {
    return this.#process.until(what);
  }

  [Symbol.dispose](): void {
    this.#process.kill();
  }
}
