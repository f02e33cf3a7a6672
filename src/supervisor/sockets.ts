// The listening sockets. The supervisor owns them and each worker serves duplicates, so an accept queue outlives a worker.
// A group of sockets is made or inherited. A TCP address that lb binds itself is a group that shares the port (SO_REUSEPORT), with one
// socket for each worker. The group only grows while its address is listened on, because closing one of its sockets would reset the
// connections in its queue. With fewer workers than sockets, the kernel ignores the other sockets for new connections, and the workers
// share the serving of their queues. A group from a service manager is the one socket that was passed, and all workers accept on it.
// A made group is retired when it is no longer wanted: it drops new connections, its queues are emptied, and a unix socket's file is
// removed. An inherited group is handed over: lb only stops accepting, and the next process that serves the socket, or the service manager
// until then, gets it unchanged.
import { fstatSync, statSync, unlinkSync } from "node:fs";
import { formatAddress, formatEndpoint, type Address, type Endpoint } from "../core/address.ts";
import type { Config, ListenerConfig } from "../config/schema.ts";
import type { SocketPlan } from "../messages.ts";
import type { InheritedSocket } from "../platform/inherited.ts";
import { isOwnSocket, isSame, listeningWith, stateOfSocketFile, type Listening } from "../platform/in-use.ts";
import {
  closeDescriptor,
  listenOn,
  ownSockets,
  resetOnClose,
  setBacklog,
  setKeepalive,
  type SocketError,
} from "../platform/sockets.ts";
import { dropNewConnections, setAffinity, takeNewConnections } from "../platform/socket-bpf.ts";

/** Workers have closed their duplicates of a retired socket after this time, however busy they are; they aim at ACCEPT_DRAIN_MS. */
const RETIRED_MS_MAX = 5000;
const RETIRED_POLL_MS = 25;

interface Group {
  readonly endpoint: Endpoint;
  readonly origin: "made" | "inherited";
  /** In the order of their listen(2) calls, which is the kernel's numbering. */
  readonly fds: number[];
  /** 0 = unknown. */
  backlog: number;
}

/** What a config wants at one address. */
interface Wanted {
  readonly endpoint: Endpoint;
  readonly listener: ListenerConfig;
}

/** New sockets of an undecided reload. */
export interface Bound {
  readonly made: { key: string; fd: number }[];
  /** Keys of inherited groups that are served from now on. */
  readonly adopted: string[];
}

export class ListeningSockets {
  #groups = new Map<string, Group>();
  /** Sockets passed by a service manager, by the address; they stay open while the process lives. */
  readonly #inherited = new Map<string, number>();
  /** When a group was last retired (on performance.now()), and the inodes of such sockets. */
  #retiredAtMs = -Infinity;
  readonly #retired = new Set<number>();

  readonly #isDrained: (listener: string) => boolean;

  /** `isDrained` says which listeners have no sockets although they are in the config. */
  constructor(inherited: readonly InheritedSocket[] = [], isDrained: (listener: string) => boolean = () => false) {
    this.#isDrained = isDrained;
    for (const { fd, endpoint } of inherited) if (endpoint !== null) this.#inherited.set(formatEndpoint(endpoint), fd);
  }

  /** Addresses of sockets passed by a service manager that no listener uses. */
  get unused(): string[] {
    return [...this.#inherited.keys()].filter((key) => !this.#groups.has(key));
  }

  /**
   * Makes or adopts the sockets that the config needs and that are missing. Existing ones are not touched. An error names the address;
   * nothing has changed then.
   */
  async bind(config: Config, workers: number): Promise<Bound | { error: string }> {
    const bound: Bound = { made: [], adopted: [] };
    if (!ownSockets()) return bound;
    for (const [key, { endpoint, listener }] of this.#wantedBy(config)) {
      if (this.#adopt(key, endpoint)) bound.adopted.push(key);
      if (this.#groups.get(key)?.origin === "inherited") continue;
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
        // For accepted sockets: a client must not mistake the end of a killed process for the end of an answer.
        if (!isUnix(endpoint)) resetOnClose(fd);
        this.#add(key, endpoint, fd, listener.backlog);
        bound.made.push({ key, fd });
      }
    }
    return bound;
  }

  /** Closes the new sockets of a reload that failed. */
  undo(bound: Bound): void {
    for (const key of bound.adopted) this.#groups.delete(key);
    for (const { key, fd } of bound.made) {
      const group = this.#groups.get(key);
      group?.fds.splice(group.fds.indexOf(fd), 1);
      closeDescriptor(fd);
      if (group?.fds.length !== 0) continue;
      this.#groups.delete(key);
      removeFile(group.endpoint);
    }
  }

  /** The sockets that one of `workers` workers serves. */
  planFor(config: Config, worker: number, workers: number, listenerIds: ReadonlyMap<string, number>): SocketPlan[] {
    const plans: SocketPlan[] = [];
    for (const [key, { endpoint, listener }] of this.#wantedBy(config)) {
      const id = listenerIds.get(listener.name) ?? -1;
      const plan = { key, listener: id, backlog: listener.backlog, ...portable(endpoint) };
      const group = this.#groups.get(key);
      (group?.fds ?? [-1]).forEach((fd, index) => {
        const isShared = isUnix(endpoint) || group?.origin === "inherited";
        if (isShared || index % workers === worker) plans.push({ ...plan, index, fd });
      });
    }
    return plans;
  }

  /**
   * Keeps new connections out of the queues of groups that the config does not want. Call it before any worker stops serving them: a worker
   * empties a queue for ACCEPT_DRAIN_MS only, and others may take longer to reach that point. The returned function undoes it.
   */
  holdBack(config: Config): () => void {
    const wanted = this.#wantedBy(config);
    const unwanted = [...this.#groups].filter(([key, group]) => !wanted.has(key) && isFiltered(group));
    const fds = unwanted.flatMap(([, group]) => group.fds);
    for (const fd of fds) dropNewConnections(fd);
    return () => {
      for (const fd of fds) takeNewConnections(fd);
    };
  }

  /**
   * Call it when a reload is decided and every worker serves the new plan: changes socket options and stops the groups that are no longer
   * wanted. Workers still accept the connections in their queues, on their duplicates.
   */
  settle(config: Config, workers: number): void {
    const wanted = this.#wantedBy(config);
    for (const [key, group] of this.#groups) {
      const want = wanted.get(key);
      if (want === undefined) this.#stop(key, group);
      else this.#adjust(group, want, workers);
    }
  }

  /** Stops every group. */
  stopAll(): void {
    for (const [key, group] of this.#groups) this.#stop(key, group);
  }

  #wantedBy(config: Config): Map<string, Wanted> {
    const wanted = new Map<string, Wanted>();
    for (const listener of config.listeners) {
      if (this.#isDrained(listener.name)) continue;
      for (const endpoint of listener.bind) wanted.set(formatEndpoint(endpoint), { endpoint, listener });
    }
    return wanted;
  }

  #adopt(key: string, endpoint: Endpoint): boolean {
    const fd = this.#inherited.get(key);
    if (fd === undefined || this.#groups.has(key)) return false;
    this.#groups.set(key, { endpoint, origin: "inherited", fds: [fd], backlog: 0 });
    return true;
  }

  // Call it before the first socket of an address. With SO_REUSEPORT alone, a second process of the same user would get half of the first
  // one's connections, so the address must be free. A unix socket's file without a listening process is removed. An address that was given
  // up a moment ago is free only when the workers have emptied its queues.
  async #makeWay(endpoint: Endpoint): Promise<string | null> {
    for (;;) {
      const trouble = this.#tryAddress(endpoint);
      if (trouble === null || performance.now() > this.#retiredAtMs + RETIRED_MS_MAX) return trouble;
      await Bun.sleep(RETIRED_POLL_MS);
    }
  }

  #tryAddress(endpoint: Endpoint): string | null {
    if (endpoint.kind === "abstract") return null;
    if (endpoint.kind === "unix") return troubleWithFile(endpoint.path);
    // It does not listen: otherwise a client that came in now would be reset when it is closed.
    const probe = listenOn(endpoint, null, false);
    if (typeof probe === "number") {
      closeDescriptor(probe);
      return null;
    }
    return probe.code === "EADDRINUSE" ? this.#troubleWith(endpoint, listeningWith(endpoint)) : explain(probe);
  }

  // A wildcard and a single address of its port can be used together if all of their sockets are lb's: the kernel gives a connection to the
  // most specific socket.
  #troubleWith(endpoint: Endpoint, listening: readonly Listening[]): string | null {
    const fds = [...this.#groups.values()].flatMap((group) => group.fds);
    const ours = new Set([...fds, ...this.#inherited.values()].map(inodeOf));
    const others = listening.filter(({ inode }) => !ours.has(inode) && !this.#retired.has(inode));
    if (others.some(({ inode }) => !isOwnSocket(inode))) return `${OTHER_PROCESS} or choose another port (EADDRINUSE)`;
    if (others.length > 0) return OWN_SOCKET;
    const isRetired = ({ address, inode }: Listening): boolean => this.#retired.has(inode) && isAt(endpoint, address);
    if (listening.some(isRetired)) return RETIRING;
    return listening.length > 0
      ? null
      : "the port is in use by a socket that does not listen; choose another one (EADDRINUSE)";
  }

  #add(key: string, endpoint: Endpoint, fd: number, backlog: number): void {
    const group = this.#groups.get(key) ?? { endpoint, origin: "made", fds: [], backlog };
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
    if (first !== undefined && !isUnix(group.endpoint) && group.origin === "made")
      setAffinity(first, listener.worker_affinity, workers, group.fds.length);
  }

  #stop(key: string, group: Group): void {
    this.#groups.delete(key);
    // An inherited group is handed over as it is. Its descriptor is kept for a later reload.
    if (group.origin === "made") this.#retire(group);
  }

  #retire(group: Group): void {
    if (performance.now() > this.#retiredAtMs + RETIRED_MS_MAX) this.#retired.clear();
    this.#retiredAtMs = performance.now();
    removeFile(group.endpoint);
    for (const fd of group.fds) {
      this.#retired.add(inodeOf(fd));
      if (isFiltered(group)) dropNewConnections(fd);
      closeDescriptor(fd);
    }
  }
}

// An inherited group is handed over as it is, and a unix socket has no segments.
function isFiltered({ origin, endpoint }: Group): boolean {
  return origin === "made" && !isUnix(endpoint);
}

function isUnix(endpoint: Endpoint): boolean {
  return endpoint.kind === "unix" || endpoint.kind === "abstract";
}

function portable(endpoint: Endpoint): { hostname: string; port: number } {
  if (endpoint.kind === "ip") return { hostname: formatAddress(...endpoint.address), port: endpoint.port };
  return { hostname: "::", port: endpoint.kind === "any" ? endpoint.port : 0 };
}

function inodeOf(fd: number): number {
  return fstatSync(fd).ino;
}

/** Whether a listening address is the endpoint's own, not only an overlapping one. */
function isAt(endpoint: Endpoint, listening: Address): boolean {
  if (endpoint.kind === "any") return isSame(listening, [0, 0, 0, 0]) || isSame(listening, [0, 0, 0xffff, 0]);
  return endpoint.kind === "ip" && isSame(endpoint.address, listening);
}

function troubleWithFile(path: string): string | null {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return null;
  if (!stat.isSocket()) return "there is a file of that name which is not a socket; remove it or choose another path";
  const state = stateOfSocketFile(path);
  if (state === "listening") return `${OTHER_PROCESS} or choose another path`;
  if (state !== "abandoned" && state !== "ENOENT")
    return `a socket of that name exists, and lb cannot find out whether a process listens on it (${state}); remove it or choose another path`;
  if (state === "abandoned") unlinkSync(path);
  return null;
}

function removeFile(endpoint: Endpoint): void {
  if (endpoint.kind !== "unix") return;
  try {
    unlinkSync(endpoint.path);
  } catch {
    // It was already removed.
  }
}

const OTHER_PROCESS = "another process listens on it; stop that one";
const OWN_SOCKET =
  "this lb listens on it for something else, such as its admin endpoint; give that another address first (EADDRINUSE)";
const RETIRING = "the listener that had it before still accepts its last connections; try again (EADDRINUSE)";

const CURES: Record<string, string> = {
  EADDRINUSE: "the address is in use; choose another one",
  EACCES: "not permitted; ports below 1024 need root or CAP_NET_BIND_SERVICE",
  EADDRNOTAVAIL: "this machine has no such address",
  ENOENT: "the folder does not exist",
  EMFILE: "the open-files limit is reached; raise it (ulimit -n, LimitNOFILE of systemd)",
};

function explain({ call, code }: SocketError): string {
  const cure = CURES[code];
  return cure === undefined ? `${code} (${call})` : `${cure} (${code})`;
}
