// Hostile clients of the admin endpoint: meanwhile probes are answered and connections are relayed.
import { request, Agent } from "node:http";
import { connect as dial, type Socket } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { echo, type Backend } from "../support/backends.ts";
import { connect, type Client } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { freePort, startLb, type Lb } from "../support/lb.ts";

const REQUESTS = 2000;
/** More than the maximum number of connections of the admin endpoint. */
const SLOW = 200;

let lb: Lb;
let backend: Backend;
let port: number;
let adminPort: number;
let relayed: Client;
const hostile = new Set<Socket>();

beforeAll(async () => {
  port = await freePort();
  backend = await echo();
  lb = await startLb(`[log]
access = "off"
format = "json"
[listeners.web]
bind = "127.0.0.1:${port}"
pool = "app"
[pools.app]
backends = ["${backend.address}"]
`);
  adminPort = Number(new URL(lb.adminUrl).port);
  relayed = await connect(port);
});

afterAll(async () => {
  for (const socket of hostile) socket.destroy();
  await lb.stop();
  backend.stop();
});

function attacker(begin: string): Socket {
  const socket = dial({ host: "127.0.0.1", port: adminPort });
  hostile.add(socket);
  socket.on("error", () => undefined);
  socket.resume();
  socket.on("close", () => hostile.delete(socket));
  socket.write(begin);
  return socket;
}

/** Everything important still works. */
async function works(): Promise<void> {
  expect((await lb.fetch("/live")).status).toBe(200);
  expect(await relayed.echoes()).toBe(true);
  using fresh = await connect(port);
  expect(await fresh.echoes()).toBe(true);
}

test("clients that send their heads and bodies byte by byte take no place from others", async () => {
  const begins = ["GET / HTTP/1.1\r\nX-", "POST /api/reload HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n{", ""];
  for (let i = 0; i < SLOW; i++) attacker(begins[i % begins.length]!);
  const drip = setInterval(() => {
    for (const socket of hostile) socket.write("a");
  }, 20);
  try {
    await eventually("the surplus is gone", () => hostile.size <= 128);
    for (let i = 0; i < 30; i++) await works();
  } finally {
    clearInterval(drip);
  }
});

test("heads and bodies without end are cut off, and their memory is bounded", async () => {
  const before = (await lb.status()).process.resident_bytes;
  const chunk = "x".repeat(64 * 1024);
  const sockets = [
    ...Array.from({ length: 20 }, () => attacker("GET /live HTTP/1.1\r\nHost: a\r\nX-Large: ")),
    ...Array.from({ length: 20 }, () =>
      attacker("POST /api/reload HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n"),
    ),
    ...Array.from({ length: 20 }, () =>
      attacker("POST /api/reload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n"),
    ),
  ];
  const flood = (socket: Socket): void => {
    while (!socket.destroyed && socket.write(chunk));
    socket.once("drain", () => flood(socket));
  };
  for (const socket of sockets) flood(socket);
  await eventually("all are cut off", () => sockets.every(({ destroyed }) => destroyed), 30_000);
  await works();
  expect((await lb.status()).process.resident_bytes - before).toBeLessThan(200 * 1024 * 1024);
});

test("two thousand requests are answered, and connections are relayed meanwhile", async () => {
  const agent = new Agent({ keepAlive: true, maxSockets: 12 });
  const ask = (path: string): Promise<number> => {
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    const outgoing = request({ host: "127.0.0.1", port: adminPort, path, agent }, (answer) => {
      answer.resume();
      answer.on("end", () => resolve(answer.statusCode ?? 0));
    });
    outgoing.on("error", reject);
    outgoing.end();
    return promise;
  };
  const paths = ["/live", "/api/nothing", "/api/connections?limit=x", "/metrics"];
  const statuses = new Map<number, number>();
  for (let done = 0; done < REQUESTS; done += 200) {
    const answers = Array.from({ length: 200 }, (_, i) => ask(paths[i % paths.length]!));
    await works();
    for (const status of await Promise.all(answers)) statuses.set(status, (statuses.get(status) ?? 0) + 1);
  }
  agent.destroy();
  expect(Object.fromEntries(statuses)).toEqual({ 200: REQUESTS / 2, 400: REQUESTS / 4, 404: REQUESTS / 4 });
});
