// One side of a connection sends and the other reads nothing for a while: the flow stops, then continues.
import { expect } from "vitest";
import type { Lb } from "./lb.ts";
import { residentBytes } from "./proc.ts";
import type { PythonEnd, PythonPeer } from "./python.ts";

export interface SlowReader {
  /** The side that sends. */
  slow: "client" | "backend";
  client: PythonPeer;
  backend: PythonPeer;
  /** What the reader sees after the last byte. */
  end: PythonEnd;
}

const BYTES = 60e6;
const HELD_BYTES_MAX = 20e6;

/** The sender is paused with bounded memory, every byte arrives, and the end is an orderly one. `lb` has one listener. */
export async function expectHeldBack(lb: Lb, { slow, client, backend, end }: SlowReader): Promise<void> {
  const [talks, reads] = slow === "client" ? [backend, client] : [client, backend];
  const direction = slow === "client" ? "bytes_out" : "bytes_in";
  const before = residentBytes(lb.pid);
  const sent = talks.exchange(BYTES, true, 0);
  expect((await lb.waitStill())[direction]).toBeLessThan(BYTES / 2);
  expect(residentBytes(lb.pid) - before).toBeLessThan(HELD_BYTES_MAX);
  const got = await reads.exchange(0, false, BYTES);
  expect(await reads.read()).toEqual({ data: "", end });
  await reads.finish();
  expect(got).toMatchObject({ count: BYTES, received: (await sent).sent });
  const line = await lb.waitLine(() => true);
  expect(line).toMatchObject({ end: "eof", [direction]: BYTES });
  expect(line.error).toBeUndefined();
}
