import { closeSync, openSync, readlinkSync } from "node:fs";
import type { Socket as Peer } from "node:net";
import { describe, expect, test, vi } from "vitest";
import { requireLibc } from "../../src/platform/libc.ts";
import { ownSockets } from "../../src/platform/sockets.ts";
import {
  EMPTY,
  ENDED,
  FULL,
  MOVED,
  RECEIVER_FAILED,
  SENDER_FAILED,
  Splice,
  UNABLE,
} from "../../src/platform/splice.ts";
import { eventually } from "../support/eventually.ts";
import { pausedPair } from "../support/paused-pair.ts";
import { calledAfterEach } from "../support/set-up.ts";

const atEnd = calledAfterEach();

const pair = () => pausedPair(atEnd);

function opened(): Splice {
  const splice = Splice.open();
  if (splice === null) throw new Error("no splice(2) here");
  atEnd.push(() => splice.close());
  return splice;
}

const bytesOf = (length: number): Buffer =>
  Buffer.from(Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 8)) & 0xff));

function heard(peer: Peer): Buffer[] {
  const chunks: Buffer[] = [];
  peer.on("data", (chunk: Buffer) => chunks.push(chunk));
  return chunks;
}

/** What an open descriptor of this process is, such as "pipe:[1234]"; null if it is closed. */
function fileOf(fd: number): string | null {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return null;
  }
}

describe.skipIf(!ownSockets())("splice", () => {
  test("moves the received bytes, in order, and no more than the maximum", async () => {
    const [from, to] = [await pair(), await pair()];
    const splice = opened();
    const chunks = heard(to.peer);
    const sent = bytesOf(3_000_000);
    from.peer.write(sent);
    let moved = 0;
    let most = 0;
    await eventually("all of it", () => {
      expect([MOVED, EMPTY]).toContain(splice.move(from.fd, to.fd, 100_000));
      expect(splice.rest).toBeNull();
      moved += splice.moved;
      most = Math.max(most, splice.moved);
      return moved === sent.length;
    });
    await eventually("its arrival", () => Buffer.concat(chunks).length === sent.length);
    expect(Buffer.concat(chunks).equals(sent)).toBe(true);
    expect(most).toBeLessThanOrEqual(100_000);
    expect(splice.move(from.fd, to.fd, 100_000)).toBe(EMPTY);
    expect([splice.moved, splice.rest]).toEqual([0, null]);
  });

  test("returns what the receiver does not take", async () => {
    const [from, to] = [await pair(), await pair()];
    const splice = opened();
    to.peer.pause();
    const sent = bytesOf(30_000_000);
    from.peer.write(sent);
    let moved = 0;
    await eventually("a receiver that is full", () => {
      const outcome = splice.move(from.fd, to.fd, Infinity);
      moved += splice.moved;
      expect(outcome === FULL).toBe(splice.rest !== null);
      return splice.rest !== null;
    });
    const { rest } = splice;
    expect(moved).toBeLessThan(sent.length);
    expect(Buffer.from(rest!).equals(sent.subarray(moved, moved + rest!.length))).toBe(true);
    const chunks = heard(to.peer);
    to.peer.resume();
    await eventually("its arrival", () => Buffer.concat(chunks).length === moved);
    expect(Buffer.concat(chunks).equals(sent.subarray(0, moved))).toBe(true);
  });

  test("leaves the sender's FIN to the next reader", async () => {
    const [from, to] = [await pair(), await pair()];
    const splice = opened();
    from.peer.end("last words");
    let moved = 0;
    await eventually("the last words", () => {
      splice.move(from.fd, to.fd, 1000);
      return (moved += splice.moved) === 10;
    });
    await eventually("the FIN", () => splice.move(from.fd, to.fd, 1000) === ENDED);
    expect(splice.moved).toBe(0);
  });

  test("reports which side has reset", async () => {
    const [from, to] = [await pair(), await pair()];
    const splice = opened();
    from.peer.write("lost");
    to.peer.resetAndDestroy();
    await eventually("the receiver's reset", () => {
      const outcome = splice.move(from.fd, to.fd, 1000);
      if (outcome === MOVED && splice.moved > 0) from.peer.write("lost too");
      return outcome === RECEIVER_FAILED;
    });
    const [dead, living] = [await pair(), await pair()];
    dead.peer.resetAndDestroy();
    await eventually("the sender's reset", () => splice.move(dead.fd, living.fd, 1000) === SENDER_FAILED);
    // Nothing of the former ones is left in the pipe.
    const chunks = heard(living.peer);
    const other = await pair();
    other.peer.write("found");
    await eventually("bytes of a third", () => splice.move(other.fd, living.fd, 1000) === MOVED && splice.moved > 0);
    await eventually("their arrival", () => Buffer.concat(chunks).toString() === "found");
  });

  test("reports descriptors that cannot be spliced", async () => {
    const to = await pair();
    const folder = openSync("/", "r");
    atEnd.push(() => closeSync(folder));
    expect(opened().move(folder, to.fd, 1000)).toBe(UNABLE);
  });

  test("closes its descriptors", () => {
    // Other threads of this process open and close descriptors meanwhile.
    const pipe2 = vi.spyOn(requireLibc(), "pipe2");
    atEnd.push(() => pipe2.mockRestore());
    const splice = Splice.open()!;
    const ends = [...(pipe2.mock.lastCall![0] as Int32Array)];
    const pipe = fileOf(ends[0]!);
    expect(pipe).toMatch(/^pipe:/);
    expect(ends.map(fileOf)).toEqual([pipe, pipe]);
    splice.close();
    expect(ends.map(fileOf)).not.toContain(pipe);
  });
});
