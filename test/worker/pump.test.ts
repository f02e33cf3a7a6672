// Real connections through a data plane of the test's own thread: which bytes go through the kernel and which through this process, and
// what happens while a receiver takes none.
import { once } from "node:events";
import type { Socket as Peer } from "node:net";
import { describe, expect, test, vi } from "vitest";
import { BandwidthRate } from "../../src/policy/bandwidth.ts";
import { bandwidthMemory, SharedBandwidth } from "../../src/shared/bandwidth.ts";
import { TimeCells } from "../../src/shared/time-cells.ts";
import { PIPE_BYTES, UNABLE } from "../../src/platform/splice.ts";
import { sendRoom } from "../../src/platform/socket-buffers.ts";
import { NO_END, ownSockets, peekNext } from "../../src/platform/sockets.ts";
import type { Connection } from "../../src/worker/connection.ts";
import type { Flow } from "../../src/worker/flow.ts";
import { eventually } from "../support/eventually.ts";
import { CLOSED, cutSendBuffer, tcpInfo } from "../support/kernel.ts";
import { LiveListener, type Given } from "../support/live-connection.ts";
import { calledAfterEach } from "../support/set-up.ts";

const atEnd = calledAfterEach();
const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

type Side = "client" | "backend";

interface Stage {
  live: LiveListener;
  connection: Connection;
  sender: Peer;
  receiver: Peer;
  flow: Flow;
}

/** A connection on which one side sends. */
async function sendingFrom(side: Side, given: Given = {}): Promise<Stage> {
  const live = await LiveListener.start(atEnd, given);
  const { client, connection, backend } = await live.connect();
  const [sender, receiver] = side === "client" ? [client, backend] : [backend, client];
  return { live, connection, sender, receiver, flow: side === "client" ? connection.toBackend : connection.toClient };
}

/** Every byte depends on its position, so that loss and reordering are detected. */
function pattern(bytes: number): Buffer {
  const words = new Uint32Array(Math.ceil(bytes / 4));
  for (let i = 0; i < words.length; i++) words[i] = i;
  return Buffer.from(words.buffer).subarray(0, bytes);
}

/** All that the peer gets until the FIN. */
async function received(peer: Peer): Promise<Buffer> {
  const chunks: Buffer[] = [];
  peer.on("data", (chunk: Buffer) => chunks.push(chunk));
  await once(peer, "end");
  return Buffer.concat(chunks);
}

/** Sends until the sender's kernel takes no more while the flow is paused. Returns the number of bytes. */
async function fill({ sender, flow }: Stage): Promise<number> {
  const block = pattern(256 * KIB);
  let sent = 0;
  const stood = async (): Promise<boolean> => {
    const full = sender.writableLength;
    await new Promise((resolve) => setTimeout(resolve, 50));
    return flow.paused && full > 0 && sender.writableLength === full;
  };
  await eventually("the flow has come to a stand", async () => {
    while (sender.writableLength === 0) {
      sent += block.length;
      sender.write(block);
    }
    return stood();
  });
  return sent;
}

/**
 * Sends until the receiver's send buffer might not take another read of the runtime, and waits until all of it is in that buffer: the flow
 * is paused, and no bytes wait in this process or in the sender's kernel. Returns the number of bytes.
 */
async function fillUntilPaused({ sender, receiver, flow }: Stage): Promise<number> {
  receiver.pause();
  let sent = 0;
  await eventually("the sender is paused and has nothing more", () => {
    // If the send buffer has grown meanwhile, the flow resumes the sender; then it takes more to pause it.
    if (flow.paused) return flow.queue === null && flow.pump?.waitedMs === 64;
    sender.write(pattern(64 * KIB));
    sent += 64 * KIB;
    return false;
  });
  return sent;
}

/** Returns once the kernel knows of the reset, and before the event loop runs again. */
function resetNow(peer: Peer, fd: number): void {
  peer.resetAndDestroy();
  for (let i = 0; tcpInfo(fd).state !== CLOSED; i++) if (i === 1e6) throw new Error("the reset has not come");
}

describe.skipIf(!ownSockets())("a stream", () => {
  test.each(["client", "backend"] as const)(
    "from the %s: what follows a large chunk goes through the kernel, and every byte arrives",
    async (side) => {
      const stage = await sendingFrom(side);
      const move = vi.spyOn(stage.live.plane.splice!, "move");
      const bytes = pattern(16 * MIB);
      const all = received(stage.receiver);
      stage.sender.end(bytes);
      expect(bytes.equals(await all)).toBe(true);
      expect(move).toHaveBeenCalled();
      const counted = side === "client" ? "bytes_in" : "bytes_out";
      stage.receiver.end();
      await eventually("the line", () => stage.live.lines.length > 0);
      expect(stage.live.lines[0]).toMatchObject({ end: "eof", [counted]: bytes.length });
    },
  );

  test.each(["client", "backend"] as const)(
    "from the %s: all go through this process where it must see them",
    async (side) => {
      const stage = await sendingFrom(side);
      stage.flow.mustSeeBytes = true;
      const move = vi.spyOn(stage.live.plane.splice!, "move");
      const bytes = pattern(16 * MIB);
      const all = received(stage.receiver);
      stage.sender.end(bytes);
      expect(bytes.equals(await all)).toBe(true);
      expect(move).not.toHaveBeenCalled();
    },
  );

  test("whose receiver's send buffer the kernel has cut shows that its memory is short", async () => {
    const { live, connection, sender, receiver, flow } = await sendingFrom("backend", {
      listener: { buffer: 1 },
    });
    const { plane } = live;
    receiver.pause();
    await eventually("some waits in its send buffer", () => {
      if (sendRoom(connection.clientFd, GIB, GIB) < GIB) return true;
      sender.write(pattern(64 * KIB));
      return false;
    });
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect([flow.paused, flow.waiting]).toEqual([false, 0]);
    cutSendBuffer(connection.clientFd);
    await eventually("it is noted", () => {
      sender.write(pattern(64 * KIB));
      return plane.kernelShortUntilWheelMs > 0;
    });
    expect(plane.kernelShortUntilWheelMs).toBeLessThanOrEqual(plane.wheel.now + 1000);
  });

  test.each([
    ["short", Infinity, 64 * KIB],
    ["not short any more", 0, PIPE_BYTES],
  ])("is moved in portions of a bounded size if the kernel's memory is %s", async (_, untilMs, portion) => {
    const { live, sender, receiver } = await sendingFrom("backend");
    live.plane.kernelShortUntilWheelMs = untilMs;
    const move = vi.spyOn(live.plane.splice!, "move");
    const bytes = pattern(4 * MIB);
    const all = received(receiver);
    sender.end(bytes);
    expect(bytes.equals(await all)).toBe(true);
    expect(Math.max(...move.mock.calls.map(([, , most]) => most))).toBe(portion);
  });

  test("all go through this process once the kernel cannot splice", async () => {
    const stage = await sendingFrom("backend");
    const { plane } = stage.live;
    vi.spyOn(plane.splice!, "move").mockReturnValue(UNABLE);
    const bytes = pattern(16 * MIB);
    const all = received(stage.receiver);
    stage.sender.end(bytes);
    expect(bytes.equals(await all)).toBe(true);
    expect(plane.splice).toBeNull();
  });
});

describe.skipIf(!ownSockets())("a receiver that reads nothing", () => {
  test.each(["client", "backend"] as const)(
    "pauses the sender, which is the %s; no more than `buffer` waits in this process; then every byte and the FIN arrive",
    async (side) => {
      const stage = await sendingFrom(side, { listener: { buffer: 128 * KIB } });
      const { sender, receiver, flow } = stage;
      receiver.pause();
      const sent = await fill(stage);
      expect(flow.waiting).toBeLessThanOrEqual(128 * KIB);
      sender.end();
      const all = received(receiver);
      receiver.resume();
      expect((await all).length).toBe(sent);
      expect(flow.state).toBe("done");
    },
  );

  test("is tried again at growing intervals, up to 64 ms, while its paused sender has nothing more", async () => {
    const stage = await sendingFrom("backend");
    const { sender, receiver, flow, connection } = stage;
    const sent = await fillUntilPaused(stage);
    expect(flow.pump!.wakeAtMs).toBeLessThanOrEqual(performance.now() + 64);
    expect(connection.isRelaying).toBe(true);
    const all = received(receiver);
    receiver.resume();
    // No event reports that the sender has more, and then that it has ended.
    sender.end(pattern(KIB));
    expect((await all).length).toBe(sent + KIB);
  });

  test.each(["client", "backend"] as const)(
    "learns of a reset of its sender, which is the %s, although the runtime does not read",
    async (side) => {
      const stage = await sendingFrom(side);
      stage.receiver.pause();
      await fill(stage);
      stage.sender.resetAndDestroy();
      await eventually("the end", () => stage.live.lines.length > 0);
      expect(stage.live.lines[0]).toMatchObject({ end: "reset", end_by: side });
    },
  );

  test("and resets the connection ends it, with the sender's bytes unsent", async () => {
    const stage = await sendingFrom("backend");
    stage.receiver.pause();
    await fill(stage);
    const closed = new Promise((resolve) => stage.sender.on("close", resolve));
    stage.receiver.resetAndDestroy();
    await closed;
    await eventually("the end", () => stage.live.lines.length > 0);
    expect(stage.live.lines[0]).toMatchObject({ end: "reset", end_by: "client" });
  });

  test.each([
    ["sender", "client", true],
    ["sender", "backend", true],
    ["sender", "client", false],
    ["sender", "backend", false],
    ["receiver", "client", true],
    ["receiver", "backend", true],
  ] as const)(
    "ends the connection if the pump meets the reset of the %s before the runtime does; the sender is the %s; spliced: %s",
    async (who, side, spliced) => {
      const stage = await sendingFrom(side);
      const { connection, sender, receiver, flow } = stage;
      await fillUntilPaused(stage);
      flow.mustSeeBytes = !spliced;
      const { clientFd, backendFd } = connection;
      const [from, to] = side === "client" ? [clientFd, backendFd] : [backendFd, clientFd];
      if (who === "sender") {
        resetNow(sender, from);
      } else {
        sender.write("more");
        await eventually("the bytes are there", () => peekNext(from) === NO_END && sender.writableLength === 0);
        resetNow(receiver, to);
      }
      connection.wake(flow);
      expect(connection.phase.name).toBe("closed");
      const other = side === "client" ? "backend" : "client";
      expect(stage.live.lines[0]).toMatchObject({ end: "reset", end_by: who === "sender" ? side : other });
    },
  );
});

test.skipIf(!ownSockets())("bandwidth is reserved only for existing bytes", async () => {
  const memory = bandwidthMemory(1);
  const times = new TimeCells(memory);
  const rate = 1_000_000;
  const bandwidth = { upload: 0, download: rate, per: "listener", memory } as const;
  const { sender, receiver, flow } = await sendingFrom("backend", { listener: { bandwidth } });
  const others = new SharedBandwidth(times, 0, "download", new BandwidthRate(rate));
  const endMs = (): number => times.load(2) / 1e6;
  // A tenth of a second is saved, and another one must be waited for.
  others.reserve(rate / 5, performance.now(), false);
  const beganMs = endMs();
  sender.write(pattern(1000));
  await eventually("the reservation", () => endMs() > beganMs);
  // It would be visible for as long as this.
  others.reserve(rate, performance.now(), false);
  await once(receiver, "data");
  expect(endMs() - beganMs).toBeCloseTo(1001, 3);
  expect(flow.queue).toBeNull();
});

test.skipIf(!ownSockets())(
  "a short reply that the bandwidth limit delays arrives whole, and its FIN after it",
  async () => {
    const bandwidth = { upload: 0, download: 10_000, per: "connection", memory: null } as const;
    const { sender, receiver } = await sendingFrom("backend", { listener: { bandwidth } });
    const bytes = pattern(2000);
    const began = performance.now();
    sender.end(bytes);
    expect(bytes.equals(await received(receiver))).toBe(true);
    // Nothing is saved at first.
    expect(performance.now() - began).toBeGreaterThan(150);
  },
);
