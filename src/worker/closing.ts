// How the two sockets of a connection are closed when it ends: which of FIN and RST each peer sees, and how long a socket
// outlives the connection so that its peer can read a FIN.
import type { Socket } from "bun";
import type { End } from "../core/ends.ts";
import type { TimerNode } from "../core/timer-wheel.ts";
import type { Flow } from "./flow.ts";
import type { Listener } from "./listener.ts";
import { allowBackendFin, allowClientFin, type ResetState } from "./reset-on-close.ts";
import type { Ended, Host } from "./session.ts";

/** With `on_abort = "close"` a connection is closed with FIN if no bytes wait and none have moved for this long. */
const QUIET_MS = 1000;

/** The client's socket outlives a refusal with FIN by at most this long, so that the FIN is not overtaken by a RST. */
export const LINGER_MS = 1000;

/** Ends that are a reset for both sides, also with `on_abort = "close"`. */
const ALWAYS_RESETS: ReadonlySet<End> = new Set(["reset", "backend_down", "killed", "drain"]);

/** The sockets of a connection, and the facts that decide how they are closed. */
export interface Peers extends TimerNode, ResetState {
  readonly host: Host;
  readonly listener: Listener;
  readonly toBackend: Flow;
  readonly toClient: Flow;
  /** TLS is used on at least one side. */
  readonly speaksTls: boolean;
  /** When a byte or FIN last arrived, or waiting bytes were last sent. */
  readonly activeWheelMs: number;
  client: Socket<unknown> | null;
  backendSocket: Socket<unknown> | null;
  /** Descriptors that wait for the peers' FINs after the end. */
  lingering: number;
}

/**
 * Whether lb ends a relaying connection with FIN. lb cannot know whether an answer is complete, so it sends a reset unless the listener
 * has on_abort = "close", and always if the pool or an operator asks for a reset.
 */
export function abortsWithFin(peers: Peers, end: End): boolean {
  if (peers.listener.plan.onAbort === "reset" || ALWAYS_RESETS.has(end)) return false;
  const { toBackend, toClient } = peers;
  // Bytes of a paused sender may wait in the kernel.
  if (toBackend.queue !== null || toBackend.paused || toClient.queue !== null || toClient.paused) return false;
  // These two have waited for their time without a byte, even if that time is short.
  if (end === "idle_timeout" || end === "half_close_timeout") return true;
  return peers.host.wheel.now - peers.activeWheelMs >= QUIET_MS;
}

/** Closes both sockets. `relayed`: the connection has come as far as relaying; `withFin`: as abortsWithFin says. */
export function closePeers(peers: Peers, { end, by }: Ended, relayed: boolean, withFin: boolean): void {
  const { client, backendSocket } = peers;
  // A TLS socket that lb ends waits ten seconds for the peer's close_notify (Bun 1.4.5).
  if (withFin && peers.speaksTls) return linger(peers);
  if (end === "eof" || withFin) {
    allowFins(peers);
    peers.client = null;
    peers.backendSocket = null;
    closeOrderly(client, peers.speaksTls);
    closeOrderly(backendSocket, peers.speaksTls);
    return;
  }
  peers.backendSocket = null;
  backendSocket?.terminate();
  // An alert must reach the client; a reset could overtake it.
  const alerted = end === "handshake_failed" && by !== "backend";
  if (alerted || (!relayed && peers.listener.plan.overLimit === "close" && !ALWAYS_RESETS.has(end)))
    return linger(peers);
  peers.client = null;
  client?.terminate();
}

// A close with unread bytes of the peer sends RST (RFC 1122, 4.2.2.13). So the sockets stay open, and their bytes are ignored, until
// the peer's own FIN or for a second.
function linger(peers: Peers): void {
  const { host, client, backendSocket } = peers;
  if (client === null && backendSocket === null) return;
  const descriptors = client === null || backendSocket === null ? 1 : 2;
  if (!host.mayLinger(descriptors)) {
    client?.terminate();
    backendSocket?.terminate();
    return;
  }
  peers.lingering = descriptors;
  allowFins(peers);
  client?.shutdown();
  backendSocket?.shutdown();
  host.startClock();
  host.wheel.schedule(peers, host.wheel.now + LINGER_MS);
}

/** Both peers have closed, or their time is over. */
export function stopLingering(peers: Peers): void {
  const { lingering, host } = peers;
  if (lingering === 0) return;
  peers.lingering = 0;
  host.wheel.cancel(peers);
  host.lingered(lingering);
}

// Does nothing if the FIN of this side was sent before.
function allowFins(peers: Peers): void {
  if (peers.client !== null && peers.toClient.state !== "done") allowClientFin(peers);
  if (peers.backendSocket !== null) allowBackendFin(peers);
}

// `close` skips the flush of a buffer, which is empty here; only `end` sends a close_notify.
function closeOrderly(socket: Socket<unknown> | null, tls: boolean): void {
  if (tls) socket?.end();
  else socket?.close();
}
