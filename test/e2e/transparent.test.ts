// `source_address = "client"`: the backend sees the client's own address. A client, lb and a backend in network namespaces of their own, with
// the one route that brings the backend's packets back to lb.
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { startLb } from "../support/lb.ts";
import { pythonMissing } from "../support/tcp-peer.ts";

const id = process.pid % 100_000;
const [clients, middle, backends] = [`lbt-c-${id}`, `lbt-m-${id}`, `lbt-b-${id}`] as const;
const CLIENT = { v4: "10.90.1.2", v6: "fd90:1::2" };
let trouble: string | null = null;
let server: ChildProcess | null = null;

/** Runs a command in a namespace; what it prints. */
function run(namespace: string, ...command: string[]): string {
  const { status, stdout, stderr } = spawnSync("ip", ["netns", "exec", namespace, ...command], { encoding: "utf8" });
  if (status !== 0) throw new Error(`${command.join(" ")}: ${stderr}`);
  return stdout;
}

function ip(...args: string[]): void {
  const { status, stderr } = spawnSync("ip", args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`ip ${args.join(" ")}: ${stderr}`);
}

function setUp(): void {
  for (const name of [clients, middle, backends]) ip("netns", "add", name);
  ip("link", "add", "c0", "netns", clients, "type", "veth", "peer", "name", "c1", "netns", middle);
  ip("link", "add", "b0", "netns", backends, "type", "veth", "peer", "name", "b1", "netns", middle);
  for (const [namespace, device, v4, v6] of [
    [clients, "c0", `${CLIENT.v4}/24`, `${CLIENT.v6}/64`],
    [middle, "c1", "10.90.1.1/24", "fd90:1::1/64"],
    [middle, "b1", "10.90.2.1/24", "fd90:2::1/64"],
    [backends, "b0", "10.90.2.2/24", "fd90:2::2/64"],
  ] as const) {
    ip("-n", namespace, "addr", "add", v4, "dev", device);
    ip("-n", namespace, "addr", "add", v6, "dev", device, "nodad");
    ip("-n", namespace, "link", "set", device, "up");
    ip("-n", namespace, "link", "set", "lo", "up");
  }
  ip("-n", backends, "route", "add", "default", "via", "10.90.2.1");
  ip("-n", backends, "-6", "route", "add", "default", "via", "fd90:2::1");
  // What comes from the backends is for this machine, whatever its destination.
  for (const family of ["-4", "-6"]) {
    ip("-n", middle, family, "rule", "add", "iif", "b1", "lookup", "100");
    ip("-n", middle, family, "route", "add", "local", "default", "dev", "lo", "table", "100");
  }
  for (const name of ["all", "b1"]) run(middle, "sysctl", "-qw", `net.ipv4.conf.${name}.rp_filter=0`);
}

/** Tells each client the address that it comes from. */
const SERVER = `
import socket, sys, threading
def serve(family, address):
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, 9000))
    listener.listen(64)
    print("ready", flush=True)
    while True:
        connection, peer = listener.accept()
        connection.sendall(("%s %d\\n" % peer[:2]).encode())
        connection.close()
threading.Thread(target=serve, args=(socket.AF_INET6, "fd90:2::2")).start()
serve(socket.AF_INET, "10.90.2.2")
`;

/** Connects and prints its own port and what the backend says. */
const ASK = `
import socket, sys
c = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10)
print(c.getsockname()[1], c.makefile().readline().strip())
`;

beforeAll(async () => {
  if (pythonMissing !== null) return void (trouble = pythonMissing);
  try {
    setUp();
    server = spawn("ip", ["netns", "exec", backends, "python3", "-c", SERVER], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let ready = "";
    server.stdout!.on("data", (text) => (ready += String(text)));
    await eventually("the backend listens twice", () => ready.split("ready").length === 3);
  } catch (error) {
    trouble = `no network namespaces: ${error instanceof Error ? error.message : String(error)}`;
  }
});
afterAll(() => {
  server?.kill("SIGKILL");
  for (const name of [clients, middle, backends]) spawnSync("ip", ["netns", "del", name]);
});
beforeEach((context) => {
  if (trouble !== null) context.skip(trouble);
});

const config = (source: string): string => `
[listeners.web]
bind = ":8080"
pool = "v4"
[listeners.six]
bind = ":8081"
pool = "v6"
[pools.v4]
backends = ["10.90.2.2:9000"]
source_address = "${source}"
[pools.v6]
backends = ["[fd90:2::2]:9000"]
source_address = "${source}"
`;

function ask(address: string, port: number): { own: number; seen: string; port: number } {
  const [own, seen = "", peer] = run(clients, "python3", "-c", ASK, address, String(port)).trim().split(" ");
  return { own: Number(own), seen, port: Number(peer) };
}

test.each(["client", "client_with_port"])("%s: the backend sees where the client comes from", async (source) => {
  await using lb = await startLb(config(source), { wrapper: ["ip", "netns", "exec", middle] });
  for (const [address, port, client] of [
    ["10.90.1.1", 8080, CLIENT.v4],
    ["fd90:1::1", 8081, CLIENT.v6],
  ] as const) {
    const { own, seen, port: seenPort } = ask(address, port);
    expect(seen).toBe(client);
    if (source === "client_with_port") expect(seenPort).toBe(own);
  }
  // The checks come from lb itself.
  const { pools } = await lb.waitStatus((status) =>
    status.pools.every(({ backends: all }) => all.every(({ health }) => health.checks.success > 0)),
  );
  expect(pools.flatMap(({ backends: all }) => all.map(({ up }) => up))).toEqual([true, true]);
});

test("a client of another family than the backend is connected from lb's own address", async () => {
  await using lb = await startLb(config("client"), { wrapper: ["ip", "netns", "exec", middle] });
  expect(ask("fd90:1::1", 8080).seen).toBe("10.90.2.1");
  expect(lb.running).toBe(true);
});

test("without the capability a start and a reload are refused, with what to do about it", async () => {
  const without = ["setpriv", "--bounding-set", "-net_raw,-net_admin", "--inh-caps", "-all"];
  const wrapper = ["ip", "netns", "exec", middle, ...without];
  const refusal = /needs the capability CAP_NET_RAW: with systemd/;
  await expect(startLb(config("client"), { wrapper })).rejects.toThrow(refusal);
  await using lb = await startLb(config(""), { wrapper });
  const reloaded = await lb.reload(config("client"));
  expect(reloaded).toMatchObject({ ok: false, generation: 1, error: expect.stringMatching(refusal) });
});
