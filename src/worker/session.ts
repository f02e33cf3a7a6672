// What everyone may know of a session: admission, the ledger, the access log, the counters and the one end need no more. A TCP
// connection is a session. And what a session may ask of its worker.
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

/** What TLS or a PROXY header has told of a client, and what few sessions need. A session without any of it has no such object. */
export class ClientFacts {
  /** The server name that the client asked for; "" = none. */
  sni = "";
  /** The protocol that was agreed on by ALPN; "" = none. */
  alpn = "";
  /** The version of TLS that is spoken with the client; "" = none. */
  tlsVersion = "";
  /** The certificate that the client has shown and that was accepted. */
  certificate: ClientCertificate | null = null;
  /** Gathers the client's first bytes while they are read. */
  head: Head | null = null;
  /** Follows the TLS records from the client, where its ciphertext can be seen. */
  tlsObserver: TlsObserver | null = null;
  /** Whom the client addressed, where a PROXY header said so. */
  addressed: ProxyEnd | null = null;
  /** Bandwidth limits that are evaluated and not enforced. */
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
  /** From the begin of the last attempt to connected; -1 = not connected. */
  readonly connectMs: number;
  /** Its pool has claimed a place at this backend for it, for which it has waited. */
  placed(backend: Backend): void;
  /** Ends the session. Safe to call twice; only the first counts. `error` is the reason where it has a name, else "". */
  finish(end: End, by: EndedBy, error?: string): void;
  /** The worker is to stop: the session may go on until then. */
  stopAt(wheelMs: number): void;
  /** The worker ends at once: peers are reset, and the rest is left to the supervisor. */
  abandon(): void;
}

/** How a session has ended. `error` is the reason where it has a name, such as an errno's, else "". */
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
  /** The busiest clients of this worker. */
  readonly activity: ClientActivity;
  /** One Int32 cell: connections of the whole process. */
  readonly open: Int32Array;
  readonly maxConnections: number;
  readonly ids: ConnectionIds;
  readonly wheel: TimerWheel;
  /** The clock stands still while there is nothing to time; a session must find it right. */
  startClock(): void;
  /** From now on the session is known to the worker. */
  remember(session: Session): void;
  /** The session has ended: its row is free again. */
  forget(session: Session): void;
  /** The queues of pools in which sessions of this worker wait, for the ticks of the clock. */
  readonly queues: Set<PoolQueue>;
  /** For flows that wait for a time. */
  readonly wakes: Wakes;
  /** Until then, on the wheel's clock, the kernel counts as short of memory for TCP. */
  kernelShortUntilWheelMs: number;
  /** What a read of our own goes through. */
  readonly scratch: Uint8Array;
  /** Writes the line of a session that has ended, while its row is still there. */
  log(session: Session, ended: Ended): void;
  /** The pipe of the worker; null while it cannot be had, for want of descriptors or for good. */
  readonly splice: Splice | null;
  spliceNoMore(): void;
  /** Whether so many descriptors may outlive their session; `lingered` gives them back. */
  mayLinger(descriptors: number): boolean;
  lingered(descriptors: number): void;
  /** A line for the debug log; the fields are not made where nobody wants them. */
  debug(event: string, fields: () => Record<string, string | number>): void;
  /** The cap of the process was reached. */
  overBudget(): void;
  /** A broken invariant: the worker ends. */
  crash(error: unknown): never;
}
