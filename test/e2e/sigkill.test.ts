// The process is killed and cannot end its connections itself: what the kernel sends to the peers. A FIN would make a truncated answer look
// complete.
import { describe, expect, test } from "vitest";
import { Authority, certificates, peersMissing, type Leaf } from "../support/certificates.ts";
import { freePorts, startLb } from "../support/lb.ts";
import { Python, type PythonPeer } from "../support/python.ts";
import { setUpUnless } from "../support/set-up.ts";
import { TcpPeers } from "../support/tcp-peer.ts";

/** Longer than the age at which backends are reset too. */
const AGE_MS = 2000;
const PART = "half an ans";

let python: Python;
let leaf: Leaf;
let other: Leaf;

setUpUnless(peersMissing, async (keep) => {
  python = await keep(new Python());
  const ca = await keep(Authority.make());
  [leaf, other] = await Promise.all([ca.leaf("a.example"), ca.leaf("b.example")]);
});

describe.each(["SIGKILL", "SIGSEGV"] as const)("%s", (signal) => {
  test("resets both sides in the middle of an answer, on plain connections and on TLS", async () => {
    const server = await python.serve({ mode: "manual" });
    const ports = await freePorts(3);
    const listeners = [[], [leaf], [leaf, other]].map(
      (leaves, i) => `[listeners.l${i}]\nbind = "127.0.0.1:${ports[i]}"\npool = "app"
        ${leaves.length === 0 ? "" : `tls.${certificates(...leaves)}`}`,
    );
    await using lb = await startLb(
      `workers = 1\n${listeners.join("\n")}\n[pools.app]\nbackends = ["${server.address}"]\nhealth.type = "off"`,
    );
    const pairs: { client: PythonPeer; backend: PythonPeer }[] = [];
    for (const [i, port] of ports.entries()) {
      const client = await python.connect(port, i === 0 ? {} : { tls: { name: "a.example" } });
      const backend = await server.nth(i);
      await backend.send(PART);
      expect(await client.read(PART)).toMatchObject({ data: PART });
      pairs.push({ client, backend });
    }
    await new Promise((resolve) => setTimeout(resolve, AGE_MS));
    lb.signal(signal);
    expect((await lb.exited).signal).toBe(signal);
    for (const { client, backend } of pairs) {
      expect(await client.read()).toEqual({ data: "", end: "reset" });
      expect(await backend.read()).toEqual({ data: "", end: "reset" });
    }
    await server.stop();
  });
});

test("a client is reset from accept on, and a FIN that was passed on before stays a FIN", async () => {
  const server = await python.serve({ mode: "manual" });
  const [port] = await freePorts(1);
  await using lb = await startLb(
    `workers = 1\n[listeners.web]\nbind = "127.0.0.1:${port}"\npool = "app"
     [pools.app]\nbackends = ["${server.address}"]\nhealth.type = "off"`,
  );
  const whole = await python.connect(port!);
  const told = await server.nth(0);
  await told.send("a whole answer");
  await told.fin();
  expect(await whole.read()).toEqual({ data: "a whole answer", end: "fin" });
  // And a backend that has received the client's FIN, and is in the middle of its answer.
  const asked = await python.connect(port!);
  const answering = await server.nth(1);
  await asked.send("question");
  await asked.fin();
  expect(await answering.read()).toEqual({ data: "question", end: "fin" });
  await answering.send(PART);
  expect(await asked.read(PART)).toMatchObject({ data: PART });
  lb.signal("SIGKILL");
  await lb.exited;
  expect(await asked.read()).toEqual({ data: "", end: "reset" });
  // No reset overtakes its bytes.
  expect(await whole.rawEnd()).toBe("fin");
  await server.stop();
});

test("an answer that is in flight when both sides have ended arrives complete, even if the process is killed", async () => {
  await using peers = new TcpPeers();
  const listener = await peers.listen("127.0.0.1:0", {});
  const [port] = await freePorts(1);
  const front = `127.0.0.1:${port}`;
  await using lb = await startLb(
    `workers = 1\n[listeners.web]\nbind = "${front}"\npool = "app"
     [pools.app]\nbackends = ["${listener.address}"]\nhealth.type = "off"`,
  );
  // lb's socket buffer holds it all, and the client has read nothing when lb closes its socket.
  const count = 20_000;
  const { client, server } = await listener.pairWith(peers.connect(front, { rcvbuf: 4096, maxseg: 536 }));
  await client.finish();
  const sent = await server.sendStream(count, true);
  expect(await lb.lineOf(client)).toMatchObject({ end: "eof", bytes_out: count });
  lb.signal("SIGKILL");
  await lb.exited;
  expect(await client.drain()).toMatchObject({ count, crc: sent.crc, end: "fin" });
});
