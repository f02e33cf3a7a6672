// The listening sockets. The supervisor owns them and lends each worker duplicates, so an accept queue outlives whoever
// serves it. A TCP address is a group of sockets that share the port (SO_REUSEPORT), one a worker; a group only grows while
// its address is listened on, because closing one of its sockets would reset what waits in its queue. When there are fewer
// workers than sockets, the kernel is told to leave the others out, and the workers share the serving of them.
import { statSync, unlinkSync } from "node:fs";
import { connect as connectUnix } from "node:net";
import { formatAddress, formatEndpoint, type Endpoint } from "../core/address.ts";
import type { Config, ListenerConfig } from "../config/schema.ts";
import type { SocketPlan } from "../messages.ts";
import {
  closeDescriptor,
  listenOn,
  ownSockets,
  refuseNewcomers,
  setBacklog,
  setKeepalive,
  setAffinity,
  type SocketError,
} from "../platform/sockets.ts";

/** Workers have closed their duplicates of a retired socket by then, however busy they are (ACCEPT_DRAIN_MS is their aim). */
const RETIRED_MS_MAX = 5000;
const RETIRED_POLL_MS = 25;

interface Group {
  readonly endpoint: Endpoint;
  /** In the order of their listen(2), which is how the kernel numbers them. */
  readonly fds: number[];
  backlog: number;
}

/** What a config asks of one address. */
interface Wanted {
  readonly endpoint: Endpoint;
  readonly listener: ListenerConfig;
}

/** New sockets of a reload that is not decided yet. */
export interface Bound {
  readonly made: { key: string; fd: number }[];
}

export class ListeningSockets {
  #groups = new Map<string, Group>();
  /** When a group was retired last (on performance.now()). */
  #retiredAtMs = -Infinity;

  /**
   * Makes what the config needs and is not there yet; nothing that exists is touched. An error names the address, and
   * then nothing was made.
   */
  async bind(config: Config, workers: number): Promise<Bound | { error: string }> {
    const bound: Bound = { made: [] };
    if (!ownSockets()) return bound;
    for (const [key, { endpoint, listener }] of wantedBy(config)) {
      const have = this.#groups.get(key)?.fds.length ?? 0;
      const need = endpoint.kind === "unix" || endpoint.kind === "abstract" ? 1 : workers;
      const trouble = have === 0 ? await this.#makeWay(endpoint) : null;
      if (trouble !== null) {
        this.undo(bound);
        return { error: `listeners.${listener.name}: cannot listen on ${key}: ${trouble}` };
      }
      for (let i = have; i < need; i++) {
        const fd = listenOn(endpoint, listener.backlog);
        if (typeof fd !== "number") {
          this.undo(bound);
          return { error: `listeners.${listener.name}: cannot listen on ${key}: ${explain(fd)}` };
        }
        this.#add(key, endpoint, fd, listener.backlog);
        bound.made.push({ key, fd });
      }
    }
    return bound;
  }

  /** The new sockets of a reload that came to nothing are closed again. */
  undo(bound: Bound): void {
    for (const { key, fd } of bound.made) {
      const group = this.#groups.get(key);
      group?.fds.splice(group.fds.indexOf(fd), 1);
      closeDescriptor(fd);
      if (group?.fds.length !== 0) continue;
      this.#groups.delete(key);
      removeFile(group.endpoint);
    }
  }

  /** The sockets that one of `workers` workers is to serve. */
  planFor(config: Config, worker: number, workers: number, listenerIds: ReadonlyMap<string, number>): SocketPlan[] {
    const plans: SocketPlan[] = [];
    for (const [key, { endpoint, listener }] of wantedBy(config)) {
      const id = listenerIds.get(listener.name) ?? -1;
      const plan = { key, listener: id, backlog: listener.backlog, ...portable(endpoint) };
      const fds = this.#groups.get(key)?.fds ?? [-1];
      fds.forEach((fd, index) => {
        if (isUnix(endpoint) || index % workers === worker) plans.push({ ...plan, index, fd });
      });
    }
    return plans;
  }

  /**
   * The reload is decided, and every worker serves the new plan: options change, sockets that nobody wants any more take
   * no newcomers. The workers still accept what is in their queues, on their duplicates.
   */
  settle(config: Config, workers: number): void {
    const wanted = wantedBy(config);
    for (const [key, group] of this.#groups) {
      const want = wanted.get(key);
      if (want === undefined) this.#retire(key, group);
      else this.#adjust(group, want, workers);
    }
  }

  /** No newcomers anywhere; the supervisor's own descriptors are closed. */
  closeAll(): void {
    for (const [key, group] of this.#groups) this.#retire(key, group);
  }

  // An address that was given up a moment ago is free only when the workers have emptied its queues; until then it is not
  // somebody else's.
  async #makeWay(endpoint: Endpoint): Promise<string | null> {
    let trouble = await makeWay(endpoint);
    while (trouble !== null && performance.now() < this.#retiredAtMs + RETIRED_MS_MAX) {
      await Bun.sleep(RETIRED_POLL_MS);
      trouble = await makeWay(endpoint);
    }
    return trouble;
  }

  #add(key: string, endpoint: Endpoint, fd: number, backlog: number): void {
    const group = this.#groups.get(key) ?? { endpoint, fds: [], backlog };
    group.fds.push(fd);
    this.#groups.set(key, group);
  }

  #adjust(group: Group, { listener }: Wanted, workers: number): void {
    for (const fd of group.fds) {
      if (group.backlog !== listener.backlog) setBacklog(fd, listener.backlog);
      if (!isUnix(group.endpoint)) setKeepalive(fd, listener.keepalive);
    }
    group.backlog = listener.backlog;
    const first = group.fds[0];
    if (first !== undefined && !isUnix(group.endpoint))
      setAffinity(first, listener.worker_affinity, workers, group.fds.length);
  }

  #retire(key: string, group: Group): void {
    this.#groups.delete(key);
    this.#retiredAtMs = performance.now();
    removeFile(group.endpoint);
    for (const fd of group.fds) {
      if (!isUnix(group.endpoint)) refuseNewcomers(fd);
      closeDescriptor(fd);
    }
  }
}

function wantedBy(config: Config): Map<string, Wanted> {
  const wanted = new Map<string, Wanted>();
  for (const listener of config.listeners) {
    for (const endpoint of listener.bind) wanted.set(formatEndpoint(endpoint), { endpoint, listener });
  }
  return wanted;
}

function isUnix(endpoint: Endpoint): boolean {
  return endpoint.kind === "unix" || endpoint.kind === "abstract";
}

function portable(endpoint: Endpoint): { hostname: string; port: number } {
  if (endpoint.kind === "ip") return { hostname: formatAddress(...endpoint.address), port: endpoint.port };
  return { hostname: "::", port: endpoint.kind === "any" ? endpoint.port : 0 };
}

// Before the first socket of an address: with SO_REUSEPORT alone a second process of the same user would get half of the
// first one's connections, so look whether somebody is there. A unix socket's file that nobody listens on is removed.
async function makeWay(endpoint: Endpoint): Promise<string | null> {
  if (endpoint.kind === "abstract") return null;
  if (endpoint.kind === "unix") return makeWayForFile(endpoint.path);
  const probe = listenOn(endpoint, 1, false);
  if (typeof probe !== "number") return explain(probe);
  closeDescriptor(probe);
  return null;
}

async function makeWayForFile(path: string): Promise<string | null> {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return null;
  if (!stat.isSocket()) return "there is a file of that name which is not a socket; remove it or choose another path";
  const { promise, resolve } = Promise.withResolvers<string | null>();
  const socket = connectUnix(path);
  socket.once("connect", () => {
    socket.destroy();
    resolve("another process listens on it; stop that one or choose another path");
  });
  socket.once("error", () => {
    unlinkSync(path);
    resolve(null);
  });
  return promise;
}

function removeFile(endpoint: Endpoint): void {
  if (endpoint.kind !== "unix") return;
  try {
    unlinkSync(endpoint.path);
  } catch {
    // Somebody has removed it before us.
  }
}

const CURES: Record<string, string> = {
  EADDRINUSE: "another process listens on it; stop that one or choose another port",
  EACCES: "not permitted; ports below 1024 need root or CAP_NET_BIND_SERVICE",
  EADDRNOTAVAIL: "this machine has no such address",
  ENOENT: "the folder does not exist",
};

function explain({ call, code }: SocketError): string {
  const cure = CURES[code];
  return cure === undefined ? `${code} (${call})` : `${cure} (${code})`;
}
