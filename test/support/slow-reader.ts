// One side of a connection sends and the other reads nothing for a while: the flow comes to a stand, then goes on.
import { expect } from "vitest";
import { eventually } from "./eventually.ts";
import type { Lb } from "./lb.ts";
import { residentBytes } from "./proc.ts";
import type { PythonEnd, PythonPeer } from "./python.ts";

export interface SlowFlow {
  /** Of the one listener of lb's. */
  direction: "bytes_in" | "bytes_out";
  talks: PythonPeer;
  reads: PythonPeer;
  bytes: number;
  /** What the reader sees after the last byte. */
  end: PythonEnd;
}

const LOOK_EVERY_MS = 100;
const HELD_BYTES_MAX = 20e6;

/** The sender is held back in bounded memory, every byte arrives, and the end is an orderly one. */
export async function expectHeldBack(lb: Lb, { direction, talks, reads, bytes, end }: SlowFlow): Promise<void> {
  const before = residentBytes(lb.pid);
  const sent = talks.exchange(bytes, true, 0);
  let at = -1;
  await eventually("the flow stands", async () => {
    const now = (await lb.status()).listeners[0]![direction];
    const stands = now > 0 && now === at;
    at = now;
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
    return stands;
  });
  expect(at).toBeLessThan(bytes / 2);
  expect(residentBytes(lb.pid) - before).toBeLessThan(HELD_BYTES_MAX);
  const got = await reads.exchange(0, false, bytes);
  expect(await reads.read()).toEqual({ data: "", end });
  await reads.finish();
  expect(got).toMatchObject({ count: bytes, received: (await sent).sent });
  const line = await lb.waitLine(() => true);
  expect(line).toMatchObject({ end: "eof", [direction]: bytes });
  expect(line.error).toBeUndefined();
}
