// A session in the form that admission, the ledger, the access log and the counters need. A TCP connection is a session. Also what a worker
// offers to its sessions.
import type { End, EndedBy } from "../core/ends.ts";
import type { TimerWheel } from "../core/timer-wheel.ts";
import type { Splice } from "../platform/splice.ts";
import type { Bandwidth } from "../policy/bandwidth.ts";
import type { Direction } from "../shared/bandwidth.ts";
import type { ClientActivity } from "../shared/client-activity.ts";
import type { ConnectionIds } from "../shared/connection-ids.ts";
import type { Ledger } from "../shared/ledger.ts";
import type { ProxyEnd } from "../wire/proxy-protocol.ts";
import type { ClientCertificate } from "./client-certificate.ts";
import type { Head } from "./head.ts";
import type { Listener } from "./listener.ts";
import type { Backend, Pool, PoolQueue } from "./pool.ts";
import type { TlsObserver } from "./tls-observer.ts";
import type { Wakes } from "./wakes.ts";

/** The facts of a client from TLS or a PROXY header, and those that few sessions need. A session without any of them has no such object. */
export class ClientFacts {
  /** The server name that the client sent; "" = none. */
  sni = "";
  /** The negotiated ALPN protocol; "" = none. */
  alpn = "";
  /** The TLS version used with the client; "" = none. */
  tlsVersion = "";
  /** The accepted certificate of the client. */
  certificate: ClientCertificate | null = null;
  /** Collects the client's first bytes while they are read. */
  head: Head | null = null;
  /** Follows the TLS records from the client, if its ciphertext is visible. */
  tlsObserver: TlsObserver | null = null;
  /** The destination of the client according to a PROXY header. */
  addressed: ProxyEnd | null = null;
  /** Bandwidth limits that are evaluated but not enforced. */
  triedBandwidth: Readonly<Record<Direction, Bandwidth | null>> | null = null;
}

export interface Session {
  readonly host: Host;
  readonly listener: Listener;
  /** Row of the ledger. */
  readonly row: number;
  readonly pool: Pool | null;
  readonly backend: Backend | null;
  readonly facts: ClientFacts | null;
  /** Duration of the last connect attempt; -1 = not connected. */
  readonly connectMs: number;
  /** The session waited for a place at this backend, and its pool has claimed it. */
  placed(backend: Backend): void;
  /** Ends the session. It may be called twice; only the first call counts. `error` is the reason if it has a name, else "". */
  finish(end: End, by: EndedBy, error?: string): void;
  /** The worker is to stop: the session may continue until then. */
  stopAt(wheelMs: number): void;
  /** The worker ends at once: peers are reset, and the supervisor does the rest. */
  abandon(): void;
}

/** How a session has ended. `error` is the reason if it has a name, such as an errno's, else "". */
export interface Ended {
  readonly end: End;
  readonly by: EndedBy;
  readonly error: string;
}

/** What a worker offers its sessions. */
export interface Host {
  /** The worker's number. */
  readonly index: number;
  readonly ledger: Ledger;
  /** The ledger's cells. */
  readonly words: Int32Array;
  readonly floats: Float64Array;
  /** The worker's row of WORKER.size cells. */
  readonly counters: Float64Array;
  /** The most active clients of this worker. */
  readonly activity: ClientActivity;
  /** One Int32 cell: connections of the whole process. */
  readonly open: Int32Array;
  readonly maxConnections: number;
  readonly ids: ConnectionIds;
  readonly wheel: TimerWheel;
  /** The clock stands still while nothing needs it; a session calls this first, so that the clock is right. */
  startClock(): void;
  /** Makes the session known to the worker. */
  remember(session: Session): void;
  /** The session has ended: its row is free again. */
  forget(session: Session): void;
  /** The pools' queues in which sessions of this worker wait: the clock ticks them. */
  readonly queues: Set<PoolQueue>;
  /** Flows that wait for a time. */
  readonly wakes: Wakes;
  /** Until this time, on the wheel's clock, the kernel counts as short of memory for TCP. */
  kernelShortUntilWheelMs: number;
  /** The buffer of lb's own reads. */
  readonly scratch: Uint8Array;
  /** Writes the access log line of a session that has ended, while its row is still there. */
  log(session: Session, ended: Ended): void;
  /** The pipe of the worker; null while there is none, for lack of descriptors or permanently. */
  readonly splice: Splice | null;
  spliceNoMore(): void;
  /** Whether this many descriptors may outlive their session; `lingered` releases them. */
  mayLinger(descriptors: number): boolean;
  lingered(descriptors: number): void;
  /** Writes a line to the debug log; `fields` is only called if debug lines are logged. */
  debug(event: string, fields: () => Record<string, string | number>): void;
  /** The cap of the process was reached. */
  overBudget(): void;
  /** A broken invariant: the worker ends. */
  crash(error: unknown): never;
}
