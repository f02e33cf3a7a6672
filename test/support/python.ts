// Python as the peer: peer.py runs as one process, with its operations as methods. Its TLS and PROXY protocol are code of others, and it
// can end a connection in every way.
import { spawn, type ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import { join } from "node:path";

const WAIT_MS = 60_000;

const alive = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of alive) child.kill("SIGKILL");
});

export interface PythonTls {
  /** As a client: SNI, and with `ca` the required name in the certificate. */
  name?: string;
  ca?: string;
  cert?: string;
  key?: string;
  alpn?: string[];
  min?: "1.2" | "1.3";
  max?: "1.2" | "1.3";
}

/** A peer's view of its TLS. */
export interface TlsKnown {
  version: string;
  cipher: string;
  alpn: string | null;
  reused: boolean;
  /** SHA-256 of the peer's certificate. */
  fingerprint: string | null;
  /** The common name in it, where it was verified. */
  peer: string | null;
  /** As a server: the requested name. */
  name: string | null;
}

/** A PROXY header as Python parsed it. */
export interface PythonHeader {
  version: 1 | 2;
  command: "PROXY" | "LOCAL";
  family: string;
  source?: string;
  destination?: string;
  source_port?: number;
  destination_port?: number;
  length?: number;
  tlvs: { [name: string]: unknown };
}

export interface ConnectOptions {
  host?: string;
  /** Local address. */
  from?: string;
  /** Sent before the handshake. */
  preface?: string | Uint8Array;
  /** The preface is sent together with the hello, and is cut with it. */
  joined?: boolean;
  tls?: PythonTls;
  /** Sends this many flights of the handshake, and the next one without its last byte: `error` is "stalled" then. */
  stall?: number;
  /** The hello in records with this many bytes each, and in segments of this many. */
  records?: number;
  segments?: number;
}

export interface ServeOptions {
  /** A free one if left out. */
  port?: number;
  /** Sent first of all. */
  greeting?: string;
  /** A PROXY header comes first. */
  proxy?: boolean;
  tls?: PythonTls;
  /** echo: also ends like its peer, with close_notify if TLS is used. manual: the test decides. */
  mode?: "echo" | "manual";
}

/** How the peer's bytes ended: with TLS, "fin" is an end without close_notify. */
export type PythonEnd = "close_notify" | "fin" | "reset";

interface Answer {
  id?: number;
  result?: unknown;
  error?: string;
  event?: string;
  [field: string]: unknown;
}

export class Python {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, (answer: Answer) => void>();
  readonly servers = new Map<number, PythonServer>();
  #last = 0;
  #errors = "";

  constructor() {
    this.#child = spawn("python3", ["-u", join(import.meta.dirname, "peer.py")], { stdio: ["pipe", "pipe", "pipe"] });
    alive.add(this.#child);
    this.#child.stderr?.setEncoding("utf8").on("data", (text: string) => (this.#errors += text));
    createInterface({ input: this.#child.stdout! }).on("line", (line) => this.#hear(JSON.parse(line) as Answer));
    this.#child.once("close", () => {
      alive.delete(this.#child);
      for (const answer of this.#waiting.values()) answer({ error: `python has ended: ${this.#errors}` });
    });
  }

  #hear(answer: Answer): void {
    if (answer.event === "connection") {
      this.servers.get(answer["server"] as number)?.heard(answer as unknown as Seen);
      return;
    }
    this.#waiting.get(answer.id ?? 0)?.(answer);
    this.#waiting.delete(answer.id ?? 0);
  }

  async call<T>(op: string, given: Record<string, unknown> = {}): Promise<T> {
    const id = ++this.#last;
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const timer = setTimeout(() => reject(new Error(`python did not answer ${op} ${this.#errors}`)), WAIT_MS);
    this.#waiting.set(id, ({ result, error }) => {
      clearTimeout(timer);
      if (error === undefined) resolve(result as T);
      else reject(new Error(`${op}: ${error}`));
    });
    this.#child.stdin?.write(`${JSON.stringify({ id, op, ...given })}\n`);
    return promise;
  }

  /** Connects, and does the handshake if `tls` is given: its failure is the peer's `error`. */
  async connect(port: number, options: ConnectOptions = {}): Promise<PythonPeer> {
    const { host, from, preface, ...rest } = options;
    const answer = await this.call<{ connection: number; address: string; error: string | null; tls: TlsKnown | null }>(
      "connect",
      {
        port,
        ...(host === undefined ? {} : { host }),
        ...(from === undefined ? {} : { local: from }),
        ...(preface === undefined ? {} : { preface: latin1(preface) }),
        ...rest,
      },
    );
    return new PythonPeer(this, answer.connection, { ...answer, to: port });
  }

  async serve(options: ServeOptions = {}): Promise<PythonServer> {
    const { server, port } = await this.call<{ server: number; port: number }>("serve", { ...options });
    const made = new PythonServer(this, server, port);
    this.servers.set(server, made);
    return made;
  }

  [Symbol.dispose](): void {
    this.#child.kill("SIGKILL");
  }
}

/** One connection of Python, as a client or a server. */
export class PythonPeer {
  readonly #python: Python;
  readonly #connection: number;
  /** "127.0.0.1:1234", its own. */
  readonly address: string;
  /** A client's destination port. */
  readonly to: number;
  /** Why the connect or the handshake failed. */
  readonly error: string | null;
  readonly tls: TlsKnown | null;
  readonly header: PythonHeader | null;

  constructor(
    python: Python,
    connection: number,
    known: { address?: string; to?: number; error?: string | null; tls?: TlsKnown | null; header?: PythonHeader },
  ) {
    this.#python = python;
    this.#connection = connection;
    this.address = known.address ?? "";
    this.to = known.to ?? 0;
    this.error = known.error ?? null;
    this.tls = known.tls ?? null;
    this.header = known.header ?? null;
  }

  async send(data: string | Uint8Array): Promise<void> {
    await this.#call("send", { data: latin1(data) });
  }

  /** Reads until the text has come, or until the end. */
  read(until: string | null = null): Promise<{ data: string; end: PythonEnd | null }> {
    return this.#call("read", { until });
  }

  async echoes(line = "ping\n"): Promise<boolean> {
    await this.send(line);
    return (await this.read(line)).data === line;
  }

  /** Sends and reads this many bytes at once, or reads `want`; `finish` ends after them, and waits for the other's end. */
  exchange(
    count: number,
    finish = false,
    want: number | null = null,
  ): Promise<{ sent: string; received: string; count: number; end: PythonEnd | null }> {
    return this.#call("exchange", { count, finish, want });
  }

  /** close_notify without FIN. */
  async closeNotify(): Promise<void> {
    await this.#act("close_notify");
  }

  /** FIN without close_notify. */
  async fin(): Promise<void> {
    await this.#act("fin");
  }

  /** Both, or only FIN without TLS. */
  async finish(): Promise<void> {
    await this.#act("finish");
  }

  async reset(): Promise<void> {
    await this.#act("reset");
  }

  /** The number of received TCP segments, once everything sent is acknowledged, including a FIN. */
  segments(): Promise<number> {
    return this.#call("act", { what: "segments_in" });
  }

  /** Waits for the end of the TCP connection, whatever TLS reports. */
  rawEnd(): Promise<"fin" | "reset"> {
    return this.#call("act", { what: "raw_end" });
  }

  async close(): Promise<void> {
    await this.#call("close", {});
  }

  #act(what: string): Promise<unknown> {
    return this.#call("act", { what });
  }

  #call<T>(op: string, given: Record<string, unknown>): Promise<T> {
    return this.#python.call<T>(op, { connection: this.#connection, ...given });
  }
}

interface Seen {
  connection: number;
  peer: number;
  error?: string;
  tls?: TlsKnown | null;
  header?: PythonHeader;
}

/** A server in Python, and its connections, including failed ones. */
export class PythonServer {
  readonly port: number;
  readonly connections: PythonPeer[] = [];
  readonly #python: Python;
  readonly #number: number;
  #wake = Promise.withResolvers<void>();

  constructor(python: Python, number: number, port: number) {
    this.#python = python;
    this.#number = number;
    this.port = port;
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  /** The first connection, past or to come, of which `predicate` is true. */
  connection(predicate: (peer: PythonPeer) => boolean = () => true): Promise<PythonPeer> {
    return this.#wait(() => this.connections.find(predicate));
  }

  /** The connection with this number, from 0. */
  nth(index: number): Promise<PythonPeer> {
    return this.#wait(() => this.connections[index]);
  }

  async #wait(find: () => PythonPeer | undefined, ms = 30_000): Promise<PythonPeer> {
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => late.reject(new Error(`no such connection among ${this.connections.length}`)), ms);
    try {
      for (;;) {
        const found = find();
        if (found !== undefined) return found;
        await Promise.race([this.#wake.promise, late.promise]);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  async stop(): Promise<void> {
    await this.#python.call("stop", { server: this.#number });
  }

  /** For `Python` alone. */
  heard(seen: Seen): void {
    this.connections.push(
      new PythonPeer(this.#python, seen.connection, { address: `127.0.0.1:${seen.peer}`, ...seen }),
    );
    this.#wake.resolve();
    this.#wake = Promise.withResolvers<void>();
  }
}

function latin1(data: string | Uint8Array): string {
  return typeof data === "string" ? data : Buffer.from(data).toString("latin1");
}
