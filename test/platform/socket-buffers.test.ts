import { describe, expect, test } from "vitest";
import {
  limitUnsent,
  NOTHING_YET,
  receive,
  RECEIVE_FAILED,
  receiveBuffer,
  sendBufferCut,
  sendRoom,
  unread,
} from "../../src/platform/socket-buffers.ts";
import { ownSockets } from "../../src/platform/sockets.ts";
import { eventually } from "../support/eventually.ts";
import { pausedPair } from "../support/paused-pair.ts";
import { calledAfterEach } from "../support/set-up.ts";
import { cutSendBuffer } from "../support/kernel.ts";

const atEnd = calledAfterEach();
const KIB = 1024;

const pair = () => pausedPair(atEnd, { reads: false });

describe.skipIf(!ownSockets())("a socket's buffers", () => {
  test("are read in bounded portions; a FIN, a reset and an empty buffer are reported", async () => {
    const { peer, fd } = await pair();
    const into = new Uint8Array(10);
    expect(receive(fd, into, 10)).toBe(NOTHING_YET);
    peer.end("abcdefghijklm");
    await eventually("bytes", () => receive(fd, into, 5) === 5);
    expect(Buffer.from(into.subarray(0, 5)).toString()).toBe("abcde");
    // No more than there is room for.
    expect(receive(fd, into, 100)).toBe(8);
    await eventually("the FIN", () => receive(fd, into, 10) === 0);

    const other = await pair();
    other.peer.resetAndDestroy();
    await eventually("the reset", () => receive(other.fd, into, 10) === RECEIVE_FAILED);
  });

  test("say how much is unread without reading it, and when there is nothing, a FIN or a reset", async () => {
    const { peer, fd } = await pair();
    expect(unread(fd)).toBe(NOTHING_YET);
    peer.end("abcdefghijklm");
    await eventually("bytes", () => unread(fd) === 13);
    expect(receive(fd, new Uint8Array(100), 13)).toBe(13);
    await eventually("the FIN", () => unread(fd) === 0);

    const other = await pair();
    other.peer.resetAndDestroy();
    await eventually("the reset", () => unread(other.fd) === RECEIVE_FAILED);
  });

  test("have room until the limit on unsent bytes is reached", async () => {
    const { socket, fd } = await pair();
    const limit = 256 * KIB;
    limitUnsent(fd, limit);
    expect(sendRoom(fd, limit, 0)).toBe(Infinity);
    const block = new Uint8Array(64 * KIB);
    let written = 0;
    for (let taken = 1; taken > 0; written += taken) taken = Math.max(0, socket.write(block));
    expect(sendRoom(fd, limit, limit)).toBe(0);
    // Without the limit the send buffer itself takes more; its size says how much.
    const more = sendRoom(fd, 1e9, 1e9);
    expect(more).toBeGreaterThan(0);
    limitUnsent(fd, 1e9);
    let rest = 0;
    for (let taken = 1; taken > 0; rest += taken) taken = Math.max(0, socket.write(block));
    expect(rest).toBeGreaterThan(more * 0.8);
    expect(sendBufferCut(fd)).toBe(false);
    cutSendBuffer(fd);
    expect(sendBufferCut(fd)).toBe(true);
    expect(sendBufferCut(-1)).toBe(false);
  });

  test("have a size", async () => {
    const { fd } = await pair();
    expect(receiveBuffer(fd)).toBeGreaterThan(4 * KIB);
    expect(receiveBuffer(-1)).toBe(Infinity);
    expect(sendRoom(-1, 1, 1)).toBe(Infinity);
  });
});
