// Peers that are not Bun's: sockets in a Python process (tcp_peer.py), controlled from here.
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { join } from "node:path";

/** Why there are no such peers on this machine, or null. */
export const pythonMissing: string | null =
  spawnSync("python3", ["--version"]).status === 0 ? null : "python3 is not installed";

export type PeerEnd = "fin" | "reset";

export interface SocketOptions {
  /** SO_RCVBUF; the kernel's own by default. */
  rcvbuf?: number;
  /** For clients: TCP_MAXSEG, which keeps buffers small on both sides. */
  maxseg?: number;
}

/** A slow reader: after each `every` bytes it pauses for `pauseMs`. */
export interface Slowness {
  every: number;
  pauseMs: number;
}

export interface Drained {
  count: number;
  crc: number;
  end: PeerEnd;
  seconds: number;
}

/** One Python process; `await using` ends it. */
export class TcpPeers {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, { resolve: (result: never) => void; reject: (error: Error) => void }>();
  #lastId = 0;
  #errors = "";

  constructor() {
    const program = join(import.meta.dirname, "tcp_peer.py");
    this.#child = spawn("python3", [program], { stdio: ["pipe", "pipe", "pipe"] });
    let rest = "";
    this.#child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) this.#hear(JSON.parse(line) as { id: number; result?: never; error?: string });
    });
    this.#child.stderr!.setEncoding("utf8").on("data", (text: string) => (this.#errors += text));
    this.#child.stdin!.on("error", () => {});
    this.#child.on("error", (error) => (this.#errors += String(error)));
    this.#child.on("close", () => {
      for (const { reject } of this.#waiting.values()) reject(new Error(`python3 has ended: ${this.#errors}`));
      this.#waiting.clear();
    });
  }

  call<T>(op: string, given: object): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const id = ++this.#lastId;
    this.#waiting.set(id, { resolve, reject });
    this.#child.stdin!.write(`${JSON.stringify({ id, op, ...given })}\n`);
    return promise;
  }

  /** Listens on an address in the form of a config; port 0 takes a free one. */
  async listen(address = "127.0.0.1:0", options: SocketOptions & { backlog?: number } = {}): Promise<PeerListener> {
    const made = await this.call<{ socket: number; address: string }>("listen", { address, ...options });
    return new PeerListener(this, made.socket, made.address === "unix" ? address : made.address);
  }

  async connect(address: string, options: SocketOptions & { source?: string } = {}): Promise<PeerSocket> {
    const made = await this.call<{ socket: number; address: string }>("connect", { address, ...options });
    return new PeerSocket(this, made.socket, made.address);
  }

  /** Opens many connections and sends on all of them until no bytes have moved for `quietMs`. */
  async pushMany(address: string, connections: number, quietMs = 300): Promise<PeerGroup> {
    const made = await this.call<{ group: number; sent: number[] }>("push_many", {
      address,
      connections,
      quiet_ms: quietMs,
    });
    return new PeerGroup(this, made.group, made.sent);
  }

  /** Opens many connections. */
  async connectMany(address: string, connections: number): Promise<PeerGroup> {
    const { group } = await this.call<{ group: number }>("connect_many", { address, connections });
    return new PeerGroup(this, group, []);
  }

  #hear({ id, result, error }: { id: number; result?: never; error?: string }): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error === undefined) waiting?.resolve(result as never);
    else waiting?.reject(new Error(error));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.once("close", () => resolve());
    this.#child.kill("SIGKILL");
    await promise;
  }
}

/** A socket in the Python process. */
class PythonSocket {
  protected readonly peers: TcpPeers;
  readonly #number: number;
  /** In the form of a config: for a listener and a client its own address, for an accepted socket its peer's. */
  readonly address: string;

  constructor(peers: TcpPeers, number: number, address: string) {
    this.peers = peers;
    this.#number = number;
    this.address = address;
  }

  async close(): Promise<void> {
    await this.call("close");
  }

  protected call<T>(op: string, given: object = {}): Promise<T> {
    return this.peers.call<T>(op, { on: this.#number, ...given });
  }
}

/** A client, and its connection at the backend. */
export interface PeerPair {
  client: PeerSocket;
  server: PeerSocket;
}

export class PeerListener extends PythonSocket {
  async accept(): Promise<PeerSocket> {
    const made = await this.call<{ socket: number; peer: string }>("accept");
    return new PeerSocket(this.peers, made.socket, made.peer);
  }

  /** A client that will connect to this listener, while no other one does. */
  async pairWith(connecting: Promise<PeerSocket>): Promise<PeerPair> {
    const [client, server] = await Promise.all([connecting, this.accept()]);
    return { client, server };
  }

  /** The next `count` connections as one group. */
  async acceptMany(count: number): Promise<PeerGroup> {
    const { group } = await this.call<{ group: number }>("accept_many", { count });
    return new PeerGroup(this.peers, group, []);
  }
}

export class PeerSocket extends PythonSocket {
  async send(text: string): Promise<void> {
    await this.call("send", { text });
  }

  /** Sends this many bytes, all blocks different, and then a FIN if requested. */
  sendStream(count: number, finish = false): Promise<{ sent: number; crc: number; end: PeerEnd | null }> {
    return this.call("send_stream", { count, finish });
  }

  /** Sends until no bytes have moved for `quietMs`: all buffers are full. */
  fill(quietMs = 300): Promise<{ sent: number; end: PeerEnd | null }> {
    return this.call("fill", { quiet_ms: quietMs });
  }

  /** Reads this many bytes; fewer if the end comes before. */
  read(count: number): Promise<{ text: string; end: PeerEnd | null }> {
    return this.call("read", { count });
  }

  /** Reads to the end. */
  drain(slowness: Slowness = { every: 0, pauseMs: 0 }): Promise<Drained> {
    return this.call("drain", { every: slowness.every, pause_ms: slowness.pauseMs });
  }

  /** Reads for `skipMs`, and then counts the bytes of the next `ms`. */
  measure(skipMs: number, ms: number): Promise<{ count: number; seconds: number }> {
    return this.call("measure", { skip_ms: skipMs, ms });
  }

  /** The number of received segments, once everything sent is acknowledged, including a FIN. */
  async segments(): Promise<number> {
    return (await this.call<{ count: number }>("segments")).count;
  }

  /** FIN; reading goes on. */
  async finish(): Promise<void> {
    await this.call("finish");
  }

  /** RST. */
  async reset(): Promise<void> {
    await this.call("reset");
  }

  /** Waits until both directions have ended, without reading; null if they have not after `ms`. */
  async hungUp(ms = 30_000): Promise<"reset" | "closed" | null> {
    const { how } = await this.call<{ how: "reset" | "closed" | null }>("hung_up", { ms });
    return how;
  }
}

/** Many sockets that do the same. */
export class PeerGroup {
  readonly #peers: TcpPeers;
  readonly #group: number;
  /** Number of bytes that each one could send. */
  readonly sent: readonly number[];

  constructor(peers: TcpPeers, group: number, sent: readonly number[]) {
    this.#peers = peers;
    this.#group = group;
    this.sent = sent;
  }

  /** Sends on all of them until no bytes have moved for `quietMs`: bytes of each. */
  async fill(quietMs = 300): Promise<number[]> {
    return (await this.#peers.call<{ sent: number[] }>("fill_many", { group: this.#group, quiet_ms: quietMs })).sent;
  }

  async finish(): Promise<void> {
    await this.#peers.call("finish_many", { group: this.#group });
  }

  /** Reads all of them to their ends, in the order of accepting. */
  drain(): Promise<{ counts: number[]; ends: PeerEnd[] }> {
    return this.#peers.call("drain_many", { group: this.#group });
  }

  async close(): Promise<void> {
    await this.#peers.call("close_many", { group: this.#group });
  }
}
