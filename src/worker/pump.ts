// Moves more bytes from a sender to its receiver by descriptor: inside the kernel if neither side uses TLS, else by reads of a bounded
// size. It replaces the runtime's reads, one of which is up to half a megabyte, whenever the receiver might not take a whole read: then the
// sender is paused, and the rest stays in the kernel.
import {
  limitUnsent,
  NOTHING_YET,
  receive,
  receiveBuffer,
  sendBufferCut,
  sendRoom,
  unread,
} from "../platform/socket-buffers.ts";
import { ownSockets } from "../platform/sockets.ts";
import { EMPTY, ENDED, FULL, MOVED, PIPE_BYTES, RECEIVER_FAILED, SENDER_FAILED, UNABLE } from "../platform/splice.ts";
import type { Moved } from "../platform/splice.ts";
import type { Connection } from "./connection.ts";
import type { Flow } from "./flow.ts";

/** Chunks of at least this size suggest that more data is queued. */
export const PUMP_FROM_BYTES = 16 * 1024;
/** After this many bytes were moved inside the kernel, or through this process, it is another connection's turn. */
const SPLICE_BYTES_MAX = 1024 * 1024;
const COPY_BYTES_MAX = 512 * 1024;
/** Maximum size of a read by the runtime. */
const READ_BYTES_MAX = PIPE_BYTES;
/** Room in the kernel's accounting for such a read: an eighth of it is overhead (8 % of spliced bytes were seen). */
const ENOUGH_BYTES = Math.ceil((READ_BYTES_MAX * 8) / 7);
/** Maximum size of lb's own reads if the receiver may not take it all. */
const PORTION_BYTES = 64 * 1024;
/**
 * Bytes that wait in the kernel for a receiver, besides those in flight: the kernel's default maximum of a send buffer (net.ipv4.tcp_wmem).
 * A lower limit makes the socket report itself full sooner: 1 MiB cost a quarter more CPU on one stream (`bun bench/run.ts --only bulk
 * --against BUILD`).
 */
const UNSENT_BYTES_MAX = 4 * 1024 * 1024;
/** After the kernel was short of memory for TCP, no send buffer is relied on for this long. */
const KERNEL_SHORT_MS = 1000;
/** A paused sender without bytes is checked again after this delay, which doubles up to the maximum. */
const LOOK_MS = 1;
const LOOK_MS_MAX = 64;

/**
 * Call it after a chunk that the receiver took: sends what has arrived since, and pauses the sender if the receiver might not take the
 * runtime's next read. Hot path.
 */
export function follow(connection: Connection, flow: Flow, length: number): void {
  if (!connection.isRelaying || flow.to === null || flow.from === null) return;
  if (flow.queue !== null) {
    if (flow.pace !== null) return wakeForPace(connection, flow);
    // The receiver is full, and its `drain` continues.
    if (flow.waiting > connection.listener.plan.buffer) noteShortage(connection, flow);
    else if (readable(connection, flow)) settle(connection, flow, FULL);
    return;
  }
  if (length < PUMP_FROM_BYTES || !readable(connection, flow)) return;
  const state = flow.ensurePump();
  state.waitedMs = 0;
  if (!state.limited) {
    state.limited = true;
    limitUnsent(receiverFd(connection, flow), UNSENT_BYTES_MAX);
  }
  if (flow.mustSeeBytes) settle(connection, flow, MOVED);
  else advance(connection, flow);
}

function noteShortage(connection: Connection, flow: Flow): void {
  const { host } = connection;
  if (sendBufferCut(receiverFd(connection, flow))) host.kernelShortUntilWheelMs = host.wheel.now + KERNEL_SHORT_MS;
}

/**
 * The receiver takes bytes again, or the flow's time has come: sends what waits, and more if the sender is paused. Ends the connection if
 * one side is gone.
 */
export function pump(connection: Connection, flow: Flow): void {
  if (!connection.isRelaying || flow.to === null) return;
  const before = flow.waiting;
  if (before > 0) {
    if (!flow.flush()) return connection.finish("reset", flow === connection.toBackend ? "backend" : "client");
    if (flow.waiting < before) connection.touch();
    // A write to a TLS socket may have run the handler of its end.
    if (!connection.isRelaying) return;
  }
  if (flow.queue !== null) {
    if (flow.pace !== null) wakeForPace(connection, flow);
  } else if (flow.paused) {
    if (readable(connection, flow)) advance(connection, flow);
    else flow.resume();
  }
}

/** The sender's socket can be read by its descriptor: it is plain TCP and still open. */
function readable(connection: Connection, flow: Flow): boolean {
  if (flow.from === null || flow.state !== "open" || !ownSockets()) return false;
  const tls = flow === connection.toBackend ? connection.clientSpeaksTls : connection.backendTlsObserver !== null;
  return !tls && senderFd(connection, flow) >= 0;
}

function senderFd(connection: Connection, flow: Flow): number {
  return flow === connection.toBackend ? connection.clientFd : connection.backendFd;
}

function receiverFd(connection: Connection, flow: Flow): number {
  return flow === connection.toBackend ? connection.backendFd : connection.clientFd;
}

/** Number of bytes that the last portion took from the sender. */
let moved = 0;

// Nothing waits in this process. Moves bytes until the sender is empty, the receiver is full, or the turn is over.
function advance(connection: Connection, flow: Flow): void {
  const inKernel = !flow.mustSeeBytes && connection.host.splice !== null;
  let left = inKernel ? SPLICE_BYTES_MAX : COPY_BYTES_MAX;
  const { pace } = flow;
  let outcome: Moved = MOVED;
  if (pace !== null) {
    outcome = look(connection, flow);
    // Called once: the allowance grows by a few bytes while the loop runs, and each would be moved separately.
    if (outcome === MOVED) left = Math.min(left, pace.allowance(performance.now(), Math.min(left, unreadBytes)));
  }
  while (left > 0 && outcome === MOVED) {
    let portion = portionFor(connection, flow);
    if (pace !== null && left < portion) portion = left;
    outcome = inKernel ? splicePortion(connection, flow, portion) : copyPortion(connection, flow, portion);
    left -= moved;
    if (!connection.isRelaying) return;
  }
  settle(connection, flow, outcome);
}

/** Number of bytes that the sender had at the last look. */
let unreadBytes = 0;

// Whether the sender has bytes: MOVED, else EMPTY, ENDED or SENDER_FAILED. Bandwidth is reserved only for existing bytes: the time of an
// unused reservation is lost for all that share the limit.
function look(connection: Connection, flow: Flow): Moved {
  unreadBytes = unread(senderFd(connection, flow));
  if (unreadBytes > 0) return MOVED;
  if (unreadBytes === 0) return ENDED;
  if (unreadBytes === NOTHING_YET) return EMPTY;
  failed(connection, flow, true);
  return SENDER_FAILED;
}

/** As much as the receiver is known to take, or `buffer` if that is unknown. */
function portionFor(connection: Connection, flow: Flow): number {
  const room = roomOf(connection, flow);
  if (room >= READ_BYTES_MAX) return READ_BYTES_MAX;
  return Math.max(Math.min(PORTION_BYTES, connection.listener.plan.buffer), room);
}

/**
 * Number of bytes that the receiver's send buffer is certain to take. Read each time, because the kernel shrinks buffers when its memory
 * for TCP is low.
 */
function roomOf(connection: Connection, flow: Flow): number {
  const { host } = connection;
  if (host.wheel.now < host.kernelShortUntilWheelMs) return 0;
  const room = sendRoom(receiverFd(connection, flow), UNSENT_BYTES_MAX, ENOUGH_BYTES);
  // Its send buffer is empty: the kernel lets it grow, and only a read shows whether there are more bytes.
  return room === Infinity ? READ_BYTES_MAX : room - (room >> 3);
}

function splicePortion(connection: Connection, flow: Flow, bytes: number): Moved {
  const { host } = connection;
  const pipe = host.splice;
  if (pipe === null) return EMPTY;
  const outcome = pipe.move(senderFd(connection, flow), receiverFd(connection, flow), bytes);
  const { rest } = pipe;
  if (pipe.moved > 0) flow.pace?.spend(pipe.moved);
  count(connection, flow, pipe.moved + (rest === null ? 0 : rest.length));
  if (outcome === SENDER_FAILED) failed(connection, flow, true);
  else if (outcome === RECEIVER_FAILED) failed(connection, flow, false);
  else if (rest !== null && !flow.forward(rest)) failed(connection, flow, false);
  if (outcome === UNABLE) host.spliceNoMore();
  return outcome;
}

function copyPortion(connection: Connection, flow: Flow, bytes: number): Moved {
  const { scratch } = connection.host;
  const came = receive(senderFd(connection, flow), scratch, Math.min(bytes, scratch.length));
  if (came === 0) return ENDED;
  if (came === NOTHING_YET) return EMPTY;
  if (came < 0) {
    failed(connection, flow, true);
    return SENDER_FAILED;
  }
  count(connection, flow, came);
  if (!flow.forward(scratch.slice(0, came))) {
    failed(connection, flow, false);
    return RECEIVER_FAILED;
  }
  return flow.queue === null ? MOVED : FULL;
}

function count(connection: Connection, flow: Flow, bytes: number): void {
  moved = bytes;
  if (bytes === 0) return;
  if (flow.pump !== null) flow.pump.waitedMs = 0;
  if (flow === connection.toBackend) connection.countIn(bytes);
  else connection.countOut(bytes);
}

function failed(connection: Connection, flow: Flow, sender: boolean): void {
  connection.finish("reset", (flow === connection.toBackend) === sender ? "client" : "backend");
}

// Decides who reads next: the runtime, when the sender has bytes, or this file, and at what time.
function settle(connection: Connection, flow: Flow, outcome: Moved): void {
  if (outcome === MOVED && flow.pace !== null && flow.queue === null) outcome = look(connection, flow);
  if (outcome === SENDER_FAILED) return;
  if (outcome === ENDED || outcome === EMPTY) flow.pace?.giveBack(performance.now());
  // Only the runtime reports a FIN.
  if (outcome === ENDED) return flow.resume();
  const ended = flow.queue !== null && fill(connection, flow) === ENDED;
  if (ended || mayRead(connection, flow)) return flow.resume();
  flow.pause();
  if (flow.pace !== null && (flow.queue !== null || outcome !== EMPTY)) return wakeForPace(connection, flow);
  // Its `drain` continues.
  if (flow.queue !== null) return;
  const state = flow.ensurePump();
  if (outcome === EMPTY) state.waitedMs = Math.min(LOOK_MS_MAX, Math.max(LOOK_MS, state.waitedMs * 2));
  connection.host.wakes.at(connection, flow, outcome === EMPTY ? state.waitedMs : 0);
}

// The receiver is full: if `buffer` is larger than the waiting bytes, more is read from the sender.
function fill(connection: Connection, flow: Flow): Moved {
  const { scratch } = connection.host;
  const { buffer } = connection.listener.plan;
  while (flow.waiting + scratch.length <= buffer) {
    const came = receive(senderFd(connection, flow), scratch, scratch.length);
    if (came === 0) return ENDED;
    if (came === NOTHING_YET) return EMPTY;
    if (came < 0) {
      failed(connection, flow, true);
      return SENDER_FAILED;
    }
    count(connection, flow, came);
    flow.queue?.push(scratch.slice(0, came));
  }
  return FULL;
}

/** Whether the runtime's next read, whatever its size, fits into the receiver's send buffer and `buffer`. */
function mayRead(connection: Connection, flow: Flow): boolean {
  if (!connection.isRelaying) return true;
  const free = connection.listener.plan.buffer - flow.waiting;
  const room = flow.queue === null ? roomOf(connection, flow) : 0;
  const { pace } = flow;
  if (pace === null && room >= READ_BYTES_MAX) return true;
  const needs = Math.min(READ_BYTES_MAX, receiveBuffer(senderFd(connection, flow))) - free;
  if (room < needs) return false;
  if (pace === null) return true;
  const now = performance.now();
  return flow.queue === null && (pace.allows(needs, now) || pace.rested(now));
}

function wakeForPace(connection: Connection, flow: Flow): void {
  const { pace, queue } = flow;
  // With credit left, the bytes wait for the receiver: its `drain` continues.
  if (pace === null || (queue !== null && pace.credit > 0)) return;
  const now = performance.now();
  connection.host.wakes.at(connection, flow, pace.nextMs(now, queue === null ? unreadBytes : queue.bytes) - now);
}
