// Backends in the test's own process: each counts its connections, can disappear and return on its port, and ends with `await using`. Two
// more have no server: a port that refuses, and one that never answers a SYN.
import type { Socket } from "bun";
import { closeDescriptor } from "../../src/platform/sockets.ts";
import { listenAt } from "./endpoints.ts";
import { freePort } from "./lb.ts";

export interface BackendOptions {
  /** Address to listen on. */
  host?: string;
  /** A free one if left out. */
  port?: number;
}

/** What a backend does with its connections. */
interface Behaviour {
  open?: (socket: Socket<Held>) => void;
  data?: (socket: Socket<Held>, chunk: Uint8Array) => void;
  end?: (socket: Socket<Held>) => void;
}

/** Bytes that the kernel has not taken yet, and whether a FIN follows them. */
interface Held {
  queue: Uint8Array[];
  ending: boolean;
}

export class Backend {
  readonly host: string;
  readonly port: number;
  /** Connections since the start, and those open now. */
  accepted = 0;
  bytesIn = 0;
  readonly open = new Set<Socket<Held>>();
  readonly #behaviour: Behaviour;
  #server: { stop(closeActiveConnections?: boolean): void } | null = null;

  constructor(host: string, port: number, behaviour: Behaviour) {
    this.host = host;
    this.port = port;
    this.#behaviour = behaviour;
    this.start();
  }

  /** In the form of a config. */
  get address(): string {
    return this.host.includes(":") ? `[${this.host}]:${this.port}` : `${this.host}:${this.port}`;
  }

  /** Listens, again on the same port. */
  start(): void {
    if (this.#server !== null) return;
    const { open, data, end } = this.#behaviour;
    this.#server = Bun.listen<Held>({
      hostname: this.host,
      port: this.port,
      allowHalfOpen: true,
      socket: {
        binaryType: "uint8array",
        open: (socket) => {
          socket.data = { queue: [], ending: false };
          this.accepted++;
          this.open.add(socket);
          open?.(socket);
        },
        data: (socket, chunk) => {
          this.bytesIn += chunk.length;
          data?.(socket, chunk);
        },
        drain: flush,
        end: (socket) => (end ?? finish)(socket),
        close: (socket) => void this.open.delete(socket),
        error: (socket) => socket.terminate(),
      },
    });
  }

  /** Stops listening; open connections continue. */
  stopListening(): void {
    this.#server?.stop(false);
    this.#server = null;
  }

  /** Stops listening and resets open connections: a crash. */
  stop(): void {
    this.stopListening();
    this.reset();
  }

  /** Resets every connection, and keeps listening. */
  reset(): void {
    for (const socket of this.open) socket.terminate();
    this.open.clear();
  }

  [Symbol.dispose](): void {
    this.stop();
  }
}

/** Writes as much as the kernel takes now, the rest when it takes more. */
export function send(socket: Socket<Held>, bytes: Uint8Array): void {
  socket.data.queue.push(bytes);
  flush(socket);
}

/** FIN, after all queued bytes. */
export function finish(socket: Socket<Held>): void {
  socket.data.ending = true;
  flush(socket);
}

function flush(socket: Socket<Held>): void {
  const { queue } = socket.data;
  while (queue.length > 0) {
    const chunk = queue[0]!;
    const taken = socket.write(chunk);
    if (taken < 0) return;
    if (taken < chunk.length) {
      queue[0] = chunk.subarray(taken);
      return;
    }
    queue.shift();
  }
  if (socket.data.ending) socket.shutdown();
}

async function backend(behaviour: Behaviour, { host = "127.0.0.1", port }: BackendOptions = {}): Promise<Backend> {
  return new Backend(host, port ?? (await freePort()), behaviour);
}

/** Echoes its input, and FIN for FIN. */
export function echo(options?: BackendOptions): Promise<Backend> {
  return backend({ data: send }, options);
}

/** Sends its name and a line feed at once, then echoes its input. */
export function tagged(name: string, options?: BackendOptions): Promise<Backend> {
  const greeting = new TextEncoder().encode(`${name}\n`);
  return backend({ open: (socket) => send(socket, greeting), data: send }, options);
}

/** Reads everything, sends nothing, ends when its peer does. */
export function sink(options?: BackendOptions): Promise<Backend> {
  return backend({}, options);
}

/** Accepts, ignores a FIN, sends nothing. */
export function silent(options?: BackendOptions): Promise<Backend> {
  return backend({ end: () => undefined }, options);
}

/** An address without a listener, now and later. */
export async function refusing(): Promise<string> {
  return `127.0.0.1:${await freePort()}`;
}

/** An address that never answers a SYN: a listening socket whose accept queue is full and is never emptied. */
export interface Blackhole {
  address: string;
  port: number;
  [Symbol.asyncDispose](): Promise<void>;
}

export async function blackhole({ host = "127.0.0.1" }: { host?: string } = {}): Promise<Blackhole> {
  const port = await freePort();
  const address = `127.0.0.1:${port}`;
  const fd = listenAt(`${host}:${port}`, 0);
  // A queue of length 0 takes one connection (tcp_conn_request compares with "greater than"); SYNs after that are dropped.
  const queued = await Bun.connect({ hostname: "127.0.0.1", port, socket: { data: () => undefined } });
  return {
    address,
    port,
    [Symbol.asyncDispose]: () => {
      queued.terminate();
      closeDescriptor(fd);
      return Promise.resolve();
    },
  };
}
