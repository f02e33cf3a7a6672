// The listening sockets that one worker serves: started with a plan, kept or replaced by the next plan, and emptied before they are
// closed.
import { ACCEPT_DRAIN_MS, type SocketPlan } from "../messages.ts";
import { listenOnAddress, listenOnDescriptor, type Listening, type ServerTls } from "../platform/bun.ts";
import { duplicate, setBacklog } from "../platform/sockets.ts";
import { Acceptor } from "./accept.ts";
import type { Listener } from "./listener.ts";
import type { Host } from "./session.ts";
import { clientEvents, tlsClientEvents } from "./socket-events.ts";

interface Served {
  readonly acceptor: Acceptor;
  readonly listening: Listening;
  /** The TLS of the socket itself; a change needs another listener on the socket. */
  readonly tls: ServerTls | null;
  readonly fd: number;
  backlog: number;
}

/** Sockets that a plan has started and that are not active yet, by their keys. */
export type Begun = ReadonlyMap<string, Served>;

export class Serving {
  readonly #host: Host;
  /** Int32 cells for the supervisor: the descriptors that accept. */
  readonly #cells: Int32Array;
  readonly #onClosed: () => void;
  readonly #served = new Map<string, Served>();
  /** Sockets that will be closed and still accept the connections in their queues. */
  readonly #draining = new Set<Served>();

  /** `onClosed` is called for each socket that was emptied and closed. */
  constructor(host: Host, cells: Int32Array, onClosed: () => void) {
    this.#host = host;
    this.#cells = cells;
    this.#onClosed = onClosed;
  }

  get draining(): boolean {
    return this.#draining.size > 0;
  }

  /** Starts to listen on the sockets of a plan that are not served yet. If it throws, nothing was started. */
  begin(sockets: readonly SocketPlan[], listeners: ReadonlyMap<number, Listener>): Begun {
    const begun = new Map<string, Served>();
    try {
      for (const socket of sockets) {
        const listener = listeners.get(socket.listener);
        if (listener === undefined) throw new Error(`no listener ${socket.listener} for ${socket.key}`);
        const key = keyOf(socket);
        // Undefined if it is not served yet.
        if (this.#served.get(key)?.tls !== listener.acceptsTls) begun.set(key, this.#listen(socket, listener));
      }
    } catch (error) {
      for (const [key, { listening }] of begun) {
        listening.stop(false);
        // Listening on a duplicate has set the backlog of a queue that others serve.
        const served = this.#served.get(key);
        if (served !== undefined) setBacklog(served.fd, served.backlog);
      }
      throw error;
    }
    return begun;
  }

  #listen(socket: SocketPlan, listener: Listener): Served {
    const acceptor = new Acceptor(this.#host, listener);
    const tls = listener.acceptsTls;
    const events = tls === null ? clientEvents : tlsClientEvents;
    const { backlog } = socket;
    if (socket.fd < 0) {
      const listening = listenOnAddress(socket.hostname, socket.port, acceptor, events);
      return { acceptor, listening, tls, fd: -1, backlog };
    }
    const fd = duplicate(socket.fd);
    if (typeof fd !== "number") throw new Error(`${fd.call}: ${fd.code}`);
    const listening = listenOnDescriptor(fd, acceptor, events, tls);
    setBacklog(fd, backlog);
    return { acceptor, listening, tls, fd, backlog };
  }

  /**
   * Serves exactly the sockets of the plan, with their current listeners. A started socket replaces the one that was served under its key:
   * it is another descriptor of the same socket, so one of the two accepts what is queued.
   */
  serve(sockets: readonly SocketPlan[], listeners: ReadonlyMap<number, Listener>, begun: Begun): void {
    const wanted = new Map(sockets.map((socket) => [keyOf(socket), socket]));
    const replaced: Listening[] = [];
    for (const [key, served] of this.#served) {
      const socket = wanted.get(key);
      const listener = socket && listeners.get(socket.listener);
      if (socket === undefined || listener === undefined) {
        this.#retire(key, served);
      } else if (begun.has(key)) {
        replaced.push(served.listening);
      } else {
        served.acceptor.listener = listener;
        if (served.backlog !== socket.backlog && served.fd >= 0) setBacklog(served.fd, socket.backlog);
        served.backlog = socket.backlog;
      }
    }
    for (const [key, served] of begun) this.#served.set(key, served);
    this.#noteDescriptors();
    for (const listening of replaced) listening.stop(false);
  }

  /** Accepts the queued connections of every socket, and then closes it. */
  retireAll(): void {
    for (const [key, served] of this.#served) this.#retire(key, served);
  }

  /** Closes sockets that are being emptied at once. */
  closeRetired(): void {
    for (const served of this.#draining) this.#close(served);
  }

  /** The worker ends: closes everything without calling `onClosed`. */
  abandon(): void {
    // A thread may take long to end, and other threads reuse the numbers: the supervisor must not replace those.
    this.#cells.fill(0);
    for (const { listening } of [...this.#served.values(), ...this.#draining]) listening.stop(false);
  }

  #retire(key: string, served: Served): void {
    this.#served.delete(key);
    this.#draining.add(served);
    setTimeout(() => this.#close(served), ACCEPT_DRAIN_MS);
  }

  #close(served: Served): void {
    if (!this.#draining.delete(served)) return;
    this.#noteDescriptors();
    served.listening.stop(false);
    this.#onClosed();
  }

  // For the supervisor, which must be able to stop a thread that does not respond from accepting.
  #noteDescriptors(): void {
    const fds = [...this.#served.values(), ...this.#draining].map(({ fd }) => fd);
    this.#cells.fill(0);
    this.#cells.set(fds.slice(0, this.#cells.length));
  }
}

function keyOf(socket: SocketPlan): string {
  return `${socket.key}#${socket.index}`;
}
