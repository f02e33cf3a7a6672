// How the two sockets of a connection are closed when it ends: which of FIN and RST each peer sees, and how long a socket
// outlives the connection so that its peer can read a FIN.
import type { Socket } from "bun";
import type { End } from "../core/ends.ts";
import type { TimerNode } from "../core/timer-wheel.ts";
import type { Flow } from "./flow.ts";
import type { Listener } from "./listener.ts";
import { allowBackendFin, allowClientFin, type ResetState } from "./reset-on-close.ts";
import type { Ended, Host } from "./session.ts";

/** With `on_abort = "close"` a connection is closed with FIN where nothing waits and nothing has moved for this long. */
const QUIET_MS = 1000;

/** The client's socket outlives a refusal with FIN by at most this long, so that the FIN is not overtaken by a RST. */
export const LINGER_MS = 1000;

/** Ends that are a reset for both sides, whatever the listener says. */
const ALWAYS_RESETS: ReadonlySet<End> = new Set(["reset", "backend_down", "killed", "drain"]);

/** The sockets of a connection, and what decides how they are closed. */
export interface Peers extends TimerNode, ResetState {
  readonly host: Host;
  readonly listener: Listener;
  readonly toBackend: Flow;
  readonly toClient: Flow;
  /** On one side at least. */
  readonly speaksTls: boolean;
  /** When a byte last moved. */
  readonly activeWheelMs: number;
  client: Socket<unknown> | null;
  backendSocket: Socket<unknown> | null;
  /** Descriptors that wait for the peers' FINs after the end. */
  lingering: number;
}

/**
 * Whether an end that lb imposes on a relaying connection is a FIN. lb cannot know whether an answer is complete, so it is a reset
 * unless the listener says otherwise, and always where the pool or an operator asks for one.
 */
export function abortsWithFin(peers: Peers, end: End): boolean {
  if (peers.listener.plan.onAbort === "reset" || ALWAYS_RESETS.has(end)) return false;
  const { toBackend, toClient } = peers;
  // Bytes of a paused sender may wait in the kernel.
  if (toBackend.queue !== null || toBackend.paused || toClient.queue !== null || toClient.paused) return false;
  // These two have waited for their time without a byte, however short it is.
  if (end === "idle_timeout" || end === "half_close_timeout") return true;
  return peers.host.wheel.now - peers.activeWheelMs >= QUIET_MS;
}

/** Closes both sockets. `relayed`: the connection has come as far as relaying; `withFin`: as abortsWithFin says. */
export function closePeers(peers: Peers, { end, by }: Ended, relayed: boolean, withFin: boolean): void {
  const { client, backendSocket } = peers;
  // A TLS socket that we end waits for the peer's close_notify, ten seconds long (Bun 1.4.5).
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

// A close while bytes of the peer are unread would send RST in spite of us (RFC 1122, 4.2.2.13), so what is left of the
// sockets stays, its bytes ignored, until the peer's own FIN or for a second.
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

/** Both peers have closed, or have had their time. */
export function stopLingering(peers: Peers): void {
  const { lingering, host } = peers;
  if (lingering === 0) return;
  peers.lingering = 0;
  host.wheel.cancel(peers);
  host.lingered(lingering);
}

// The FIN of a side may have been sent before, and then this is done.
function allowFins(peers: Peers): void {
  if (peers.client !== null && peers.toClient.state !== "done") allowClientFin(peers);
  if (peers.backendSocket !== null) allowBackendFin(peers);
}

// `close` spares `end`'s flush of a buffer that there is none of; only `end` sends a close_notify.
function closeOrderly(socket: Socket<unknown> | null, tls: boolean): void {
  if (tls) socket?.end();
  else socket?.close();
}
