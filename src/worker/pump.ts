// Brings more bytes of a sender to its receiver by descriptor: inside the kernel where neither side speaks TLS with us, else
// by reads of a bounded size. It takes over from the runtime, whose one read is up to half a megabyte, wherever the
// receiver might not take all of such a read: the sender is paused then, and what does not fit stays in the kernel.
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
/** Once this much has moved inside the kernel, or through this process, it is another connection's turn. */
const SPLICE_BYTES_MAX = 1024 * 1024;
const COPY_BYTES_MAX = 512 * 1024;
/** The largest read of the runtime. */
const READ_BYTES_MAX = PIPE_BYTES;
/** Room by the kernel's count that takes such a read: an eighth of it goes to overhead (8 % of spliced bytes were seen). */
const ENOUGH_BYTES = Math.ceil((READ_BYTES_MAX * 8) / 7);
/** Reads of our own are of at most this size where the receiver may not take it all. */
const PORTION_BYTES = 64 * 1024;
/**
 * What waits in the kernel for a receiver, beside what is on its way to it: the kernel's usual greatest send buffer
 * (net.ipv4.tcp_wmem). A lower limit makes the socket report itself full sooner: 1 MiB cost a quarter more CPU on one stream
 * (`bun bench/run.ts --only bulk --against BUILD`).
 */
const UNSENT_BYTES_MAX = 4 * 1024 * 1024;
/** After the kernel was seen short of memory for TCP, no send buffer is relied on for this long. */
const KERNEL_SHORT_MS = 1000;
/** A paused sender that had nothing is looked at again after this long; doubled each time up to the greatest. */
const LOOK_MS = 1;
const LOOK_MS_MAX = 64;

/**
 * After a chunk that the receiver took: what else has come follows, and the sender is paused where the receiver might not take
 * the runtime's next read. Hot path.
 */
export function follow(connection: Connection, flow: Flow, length: number): void {
  if (!connection.isRelaying || flow.to === null || flow.from === null) return;
  if (flow.queue !== null) {
    if (flow.pace !== null) return wakeForPace(connection, flow);
    // The receiver is full, and its `drain` goes on.
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
 * The receiver takes bytes again, or its time to look at the flow has come: sends what waits, and more if the sender is paused.
 * Ends the connection where one side is gone.
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

/** The sender's socket can be read by its descriptor: plain, and still there. */
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

/** Bytes that the last portion has taken from the sender. */
let moved = 0;

// Nothing waits in this process. Moves until the sender is empty, the receiver is full, or it has been enough.
function advance(connection: Connection, flow: Flow): void {
  const inKernel = !flow.mustSeeBytes && connection.host.splice !== null;
  let left = inKernel ? SPLICE_BYTES_MAX : COPY_BYTES_MAX;
  const { pace } = flow;
  let outcome: Moved = MOVED;
  if (pace !== null) {
    outcome = look(connection, flow);
    // Asked once: the allowance grows by a few bytes while the loop runs, and each would be moved by itself.
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

/** Bytes that the sender had at the last look. */
let unreadBytes = 0;

// Whether the sender has bytes: MOVED, else EMPTY, ENDED or SENDER_FAILED. Bandwidth is reserved for bytes that are there: where a
// reservation is not used, its time has passed for all that share the limit.
function look(connection: Connection, flow: Flow): Moved {
  unreadBytes = unread(senderFd(connection, flow));
  if (unreadBytes > 0) return MOVED;
  if (unreadBytes === 0) return ENDED;
  if (unreadBytes === NOTHING_YET) return EMPTY;
  failed(connection, flow, true);
  return SENDER_FAILED;
}

/** As much as the receiver is known to take, or what `buffer` holds where it does not. */
function portionFor(connection: Connection, flow: Flow): number {
  const room = roomOf(connection, flow);
  if (room >= READ_BYTES_MAX) return READ_BYTES_MAX;
  return Math.max(Math.min(PORTION_BYTES, connection.listener.plan.buffer), room);
}

/**
 * Bytes that the receiver's send buffer is sure to take. Asked each time, since the kernel makes buffers smaller when its memory for TCP
 * runs low.
 */
function roomOf(connection: Connection, flow: Flow): number {
  const { host } = connection;
  if (host.wheel.now < host.kernelShortUntilWheelMs) return 0;
  const room = sendRoom(receiverFd(connection, flow), UNSENT_BYTES_MAX, ENOUGH_BYTES);
  // Nothing waits there. The kernel lets an empty buffer grow, and to read is the only way to hear of more.
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

// Who reads next: the runtime, when the sender has something, or this file, and then when.
function settle(connection: Connection, flow: Flow, outcome: Moved): void {
  if (outcome === MOVED && flow.pace !== null && flow.queue === null) outcome = look(connection, flow);
  if (outcome === SENDER_FAILED) return;
  if (outcome === ENDED || outcome === EMPTY) flow.pace?.giveBack(performance.now());
  // The runtime is the one who hears of a FIN.
  if (outcome === ENDED) return flow.resume();
  const ended = flow.queue !== null && fill(connection, flow) === ENDED;
  if (ended || mayRead(connection, flow)) return flow.resume();
  flow.pause();
  if (flow.pace !== null && (flow.queue !== null || outcome !== EMPTY)) return wakeForPace(connection, flow);
  // Its `drain` goes on.
  if (flow.queue !== null) return;
  const state = flow.ensurePump();
  if (outcome === EMPTY) state.waitedMs = Math.min(LOOK_MS_MAX, Math.max(LOOK_MS, state.waitedMs * 2));
  connection.host.wakes.at(connection, flow, outcome === EMPTY ? state.waitedMs : 0);
}

// The receiver is full: a `buffer` larger than the bytes that wait takes more of the sender's.
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
  // With credit the receiver is what bytes wait for: its `drain` goes on.
  if (pace === null || (queue !== null && pace.credit > 0)) return;
  const now = performance.now();
  connection.host.wakes.at(connection, flow, pace.nextMs(now, queue === null ? unreadBytes : queue.bytes) - now);
}
