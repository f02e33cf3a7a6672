// One real TCP connection through a data plane of the test's own thread: the client and the backend are sockets of node:net.
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Socket as Peer } from "node:net";
import { clientEvents, tlsClientEvents, type ClientSide } from "../../src/worker/socket-events.ts";
import type { FromWorker, ListenerPlan, PoolPlan } from "../../src/messages.ts";
import { listenOnDescriptor } from "../../src/platform/bun.ts";
import { closeDescriptor, localAddress } from "../../src/platform/sockets.ts";
import { Acceptor } from "../../src/worker/accept.ts";
import { Connection } from "../../src/worker/connection.ts";
import { Listener } from "../../src/worker/listener.ts";
import { DataPlane } from "../../src/worker/plane.ts";
import { Pool } from "../../src/worker/pool.ts";
import { TlsServer } from "../../src/worker/tls-server.ts";
import { listenAt } from "./endpoints.ts";
import { eventually } from "./eventually.ts";
import { backendPlan, listenerPlan, plan, poolPlan, workerStart } from "./plans.ts";

export interface Given {
  listener?: Partial<ListenerPlan>;
  pool?: Partial<PoolPlan>;
}

/** A listener with one backend. Whatever is opened is closed by the calls of `atEnd`. */
export class LiveListener {
  readonly plane: DataPlane;
  readonly listener: Listener;
  readonly #messages: FromWorker[] = [];
  readonly #accepted: Connection[] = [];
  readonly #backends: Peer[] = [];
  readonly #atEnd: (() => unknown)[];
  readonly port: number;

  static async start(atEnd: (() => unknown)[], given: Given = {}): Promise<LiveListener> {
    const server = createServer({ allowHalfOpen: true });
    await once(server.listen(0, "127.0.0.1"), "listening");
    const live = new LiveListener(atEnd, given, (server.address() as AddressInfo).port);
    server.on("connection", (peer) => live.#backends.push(quiet(peer)));
    atEnd.push(() => {
      server.close();
      for (const peer of live.#backends) peer.destroy();
    });
    return live;
  }

  private constructor(atEnd: (() => unknown)[], { listener, pool }: Given, backendPort: number) {
    this.#atEnd = atEnd;
    const backends = [backendPlan({ address: `127.0.0.1:${backendPort}` })];
    const pools = poolPlan({ backends, ...pool });
    const listeners = listenerPlan({ pool: pools.id, ...listener });
    this.plane = new DataPlane(workerStart(plan({ maxConnections: 10 })), (message) => this.#messages.push(message));
    const tls = listeners.tls === null ? null : new TlsServer(listeners.tls);
    this.listener = new Listener(listeners, new Map([[pools.id, new Pool(pools, null, 0)]]), tls, 0);
    const fd = listenAt("127.0.0.1:0", 16);
    const { acceptsTls } = this.listener;
    const events = acceptsTls === null ? clientEvents : tlsClientEvents;
    const opened = (socket: { data: ClientSide }): void => {
      if (socket.data instanceof Connection && !this.#accepted.includes(socket.data)) this.#accepted.push(socket.data);
    };
    const listening = listenOnDescriptor<ClientSide>(
      fd,
      new Acceptor(this.plane, this.listener),
      {
        ...events,
        open(socket) {
          void events.open?.(socket);
          opened(socket);
        },
      },
      acceptsTls,
    );
    this.port = portOf(fd);
    atEnd.push(() => {
      for (const connection of this.#accepted) connection.finish("shutdown", "lb");
      listening.stop(true);
      this.plane.stop(0, 0);
      closeDescriptor(fd);
    });
  }

  /** A client, its connection, and the backend's end once the backend has accepted it. */
  async connect(): Promise<{ client: Peer; connection: Connection; backend: Peer }> {
    const client = quiet(connect({ port: this.port, host: "127.0.0.1", allowHalfOpen: true }));
    this.#atEnd.push(() => client.destroy());
    const count = this.#backends.length;
    await once(client, "connect");
    const backend = await this.backend(count);
    const connection = this.#accepted.at(-1)!;
    await eventually("the connection relays", () => connection.isRelaying);
    return { client, connection, backend };
  }

  /** The backend's end of connection `index`. */
  async backend(index: number): Promise<Peer> {
    await eventually("the backend has accepted", () => this.#backends.length > index);
    return this.#backends[index]!;
  }

  get connections(): readonly Connection[] {
    return this.#accepted;
  }

  /** The lines of the access log so far. */
  get lines(): Record<string, unknown>[] {
    this.plane.accessLog.flush();
    return this.#messages.flatMap((message) =>
      message.kind === "access"
        ? message.text
            .trimEnd()
            .split("\n")
            .map((line) => JSON.parse(line) as Record<string, unknown>)
        : [],
    );
  }
}

function portOf(fd: number): number {
  const name = new Int32Array(5);
  if (!localAddress(fd, name, 0)) throw new Error("the listening socket has no address");
  return name[4]!;
}

// Some tests wait for a reset; all others ignore it.
function quiet(peer: Peer): Peer {
  return peer.on("error", () => undefined);
}
