// One check against real sockets: what it sends and expects, and when its descriptor is free.
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { sockaddr, type Visibility } from "../../src/platform/sockets.ts";
import { TlsClient } from "../../src/platform/tls-client.ts";
import { Probe, type Outcome, type ProbeSpec } from "../../src/supervisor/probe.ts";
import { bad, connectOnly, cutShort, more, ok, type Exchange } from "../../src/wire/exchange.ts";
import { echo, refusing, silent, tagged } from "../support/backends.ts";
import { BackendProcess } from "../support/backend-process.ts";
import { Authority, peersMissing } from "../support/certificates.ts";
import { endpoint } from "../support/endpoints.ts";
import { eventually } from "../support/eventually.ts";

const end: Exchange["end"] = (cut) => cutShort(cut, new Uint8Array(0));

/** Sends each of `sends` when the previous text has come back. */
function conversation(...sends: string[]): Exchange {
  let at = 0;
  let heard = "";
  return {
    begin: () => more(Buffer.from(sends[0]!)),
    push: (bytes) => {
      heard += Buffer.from(bytes).toString();
      if (!sends[at]!.startsWith(heard)) return bad(`heard ${heard}`);
      if (heard.length < sends[at]!.length) return more();
      heard = "";
      at++;
      return at < sends.length ? more(Buffer.from(sends[at]!)) : ok();
    },
    end,
  };
}

/** The result of a check of an address; `closed` resolves when its descriptor is free. */
function probe(address: string, given: Partial<ProbeSpec> = {}): { outcome: Promise<Outcome>; closed: Promise<void> } {
  const outcome = Promise.withResolvers<Outcome>();
  const closed = Promise.withResolvers<void>();
  const to = endpoint(address);
  const visible: Visibility = "visible";
  const spec: ProbeSpec = {
    to: { endpoint: to, sockaddr: sockaddr(to) },
    source: null,
    timeoutMs: 5000,
    visibility: visible,
    header: new Uint8Array(0),
    tls: null,
    exchange: connectOnly,
    ...given,
  };
  new Probe(spec, { probed: outcome.resolve, probeClosed: closed.resolve });
  return { outcome: outcome.promise, closed: closed.promise };
}

const UNVERIFIED = {
  verify: false,
  ca: null,
  serverName: "",
  alpn: [],
  minVersion: "1.2",
  cert: null,
  key: null,
} as const;

const SUCCESS: Outcome = { result: "success", why: null, failure: null, silent: false };

describe("an exchange", () => {
  test("runs to its end, and then the probe sends FIN", async () => {
    using backend = await echo();
    const { outcome, closed } = probe(backend.address, { exchange: conversation("PING\r\n", "and again", "x") });
    expect(await outcome).toEqual(SUCCESS);
    await closed;
    expect(backend.bytesIn).toBe("PING\r\nand againx".length);
    await eventually("it has left", () => backend.open.size === 0);
  });

  test("follows the PROXY header", async () => {
    using backend = await echo();
    const header = Buffer.from("PROXY UNKNOWN\r\n");
    const exchange: Exchange = { begin: () => more(), push: (bytes) => (bytes[0] === 80 ? ok() : more()), end };
    expect(await probe(backend.address, { header, exchange }).outcome).toEqual(SUCCESS);
    expect(backend.bytesIn).toBe(header.length);
  });

  test("that gets an unexpected answer reports it", async () => {
    using backend = await tagged("welcome");
    const { outcome, closed } = probe(backend.address, { exchange: conversation("PING\r\n") });
    const { result, why, failure } = await outcome;
    expect({ result, failure }).toEqual({ result: "failure", failure: "answer" });
    expect(why).toContain("heard welcome");
    await closed;
  });

  test("that gets no answer ends at the timeout", async () => {
    using backend = await silent();
    const { outcome, closed } = probe(backend.address, { exchange: conversation("PING\r\n"), timeoutMs: 50 });
    expect(await outcome).toEqual({
      result: "failure",
      why: "no answer in time",
      failure: "timeout",
      silent: true,
    });
    await closed;
    await eventually("nothing is left", () => backend.open.size === 0);
  });

  test("that gets no answer fails although this thread is blocked beyond every timeout", async () => {
    using backend = await silent();
    const { outcome, closed } = probe(backend.address, { exchange: conversation("PING\r\n"), timeoutMs: 50 });
    let result: Outcome | null = null;
    void outcome.then((one) => (result = one));
    // Its timer is late twice; the time that was lost is given back once.
    for (let i = 0; i < 3; i++) {
      Bun.sleepSync(150);
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    expect(result).toMatchObject({ result: "failure", failure: "timeout" });
    await closed;
  });

  test("that is answered in time succeeds although this thread was blocked beyond the timeout", async () => {
    await using backend = await BackendProcess.start("welcome");
    const greeted: Exchange = { begin: () => more(), push: () => ok(), end };
    for (let i = 0; i < 5; i++) {
      const unseen = probe(backend.address, { visibility: "unseen", timeoutMs: 100 });
      const { outcome, closed } = probe(backend.address, { exchange: greeted, timeoutMs: 100 });
      Bun.sleepSync(300);
      expect(await outcome).toEqual(SUCCESS);
      expect(await unseen.outcome).toEqual(SUCCESS);
      await closed;
    }
  });

  test("ends with FIN and reads what the backend still sends, so that the backend sees no reset", async () => {
    const ends: (string | undefined)[] = [];
    const server = Bun.listen<undefined>({
      hostname: "127.0.0.1",
      port: 0,
      allowHalfOpen: true,
      socket: {
        data: (socket, bytes) => void socket.write(bytes),
        // Sends more only now; a reset would tell it that nobody has read it.
        end: (socket) => {
          socket.write("goodbye");
          setTimeout(() => socket.end(), 50);
        },
        close: (_, error) => void ends.push((error as { code?: string } | undefined)?.code),
      },
    });
    const fails: Exchange = { begin: () => more(Buffer.from("x")), push: () => bad("no", Buffer.from("QUIT")), end };
    for (const exchange of [conversation("x"), fails]) {
      const { outcome, closed } = probe(`127.0.0.1:${server.port}`, { exchange });
      expect(await outcome).toMatchObject({ why: exchange === fails ? "no" : null });
      await closed;
    }
    await eventually("both are over", () => ends.length === 2);
    expect(ends).toEqual([undefined, undefined]);
    server.stop(true);
  });

  test("may succeed with the backend's FIN, or at the timeout", async () => {
    const willing: Exchange = { begin: () => more(), push: () => more(), end: () => ok() };
    using mute = await silent();
    expect(await probe(mute.address, { exchange: willing, timeoutMs: 50 }).outcome).toMatchObject({ why: null });
    const server = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: { open: (socket) => void socket.end("a"), data: () => undefined },
    });
    expect(await probe(`127.0.0.1:${server.port}`, { exchange: willing }).outcome).toEqual(SUCCESS);
    server.stop(true);
  });

  test("that is over resets a backend that does not stop sending", async () => {
    const chunk = Buffer.alloc(65536);
    let open = 0;
    const server = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      allowHalfOpen: true,
      socket: {
        open: (socket) => (open++, void socket.write(chunk)),
        data: () => undefined,
        drain: (socket) => void socket.write(chunk),
        close: () => void open--,
      },
    });
    const exchange: Exchange = { begin: () => more(), push: () => ok(), end };
    const began = performance.now();
    const { closed } = probe(`127.0.0.1:${server.port}`, { exchange, timeoutMs: 30_000 });
    await closed;
    await eventually("the backend has noticed", () => open === 0);
    expect(performance.now() - began).toBeLessThan(20_000);
    server.stop(true);
  });

  test("that is cut short fails", async () => {
    const server = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: { data: (socket) => void socket.end("PI") },
    });
    const { outcome } = probe(`127.0.0.1:${server.port}`, { exchange: conversation("PING\r\n") });
    expect(await outcome).toMatchObject({
      result: "failure",
      failure: "answer",
      why: "closed before the answer",
    });
    server.stop(true);
  });

  test("is not started if nobody listens", async () => {
    const exchange: Exchange = { begin: () => expect.unreachable(), push: () => expect.unreachable(), end };
    const { outcome } = probe(await refusing(), { exchange });
    expect(await outcome).toEqual({
      result: "failure",
      why: "connection refused",
      failure: "refused",
      silent: false,
    });
  });
});

describe.skipIf(peersMissing !== null)("TLS", () => {
  test("fails with a backend that does not speak it", async () => {
    using backend = await tagged("welcome");
    const { address } = backend;
    const tls = { client: new TlsClient({ ...UNVERIFIED, alpn: [] }), host: "", address, when: "first" } as const;
    const { outcome } = probe(address, { tls, exchange: conversation("PING\r\n", "x") });
    expect(await outcome).toMatchObject({ result: "failure", failure: "tls" });
  });

  test("carries the exchange; the descriptor is free at the timeout at the latest", async () => {
    using authority = await Authority.make();
    const leaf = await authority.selfSigned("backend.example");
    let open = 0;
    const server = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      tls: { cert: readFileSync(leaf.cert, "utf8"), key: readFileSync(leaf.key, "utf8") },
      // Without a close_notify of its own.
      allowHalfOpen: true,
      socket: {
        open: () => void open++,
        data: (socket, bytes) => void socket.write(bytes),
        close: () => void open--,
      },
    });
    const address = `127.0.0.1:${server.port}`;
    const tls = { client: new TlsClient({ ...UNVERIFIED, alpn: [] }), host: "", address, when: "first" } as const;
    const { outcome, closed } = probe(address, { tls, exchange: conversation("PING\r\n", "x"), timeoutMs: 2000 });
    expect(await outcome).toEqual(SUCCESS);
    expect(open).toBe(1);
    await closed;
    await eventually("nothing is left", () => open === 0);
    server.stop(true);
  });
});

test("a cancelled probe reports nothing and leaves nothing open", async () => {
  using backend = await silent();
  let said = 0;
  const to = endpoint(backend.address);
  const probe = new Probe(
    {
      to: { endpoint: to, sockaddr: sockaddr(to) },
      source: null,
      timeoutMs: 5000,
      visibility: "visible",
      header: Buffer.from("hello"),
      tls: null,
      exchange: conversation("PING\r\n"),
    },
    { probed: () => said++, probeClosed: () => said++ },
  );
  await eventually("it has begun", () => backend.bytesIn > 0);
  probe.cancel();
  await eventually("nothing is left", () => backend.open.size === 0);
  expect(said).toBe(0);
});
