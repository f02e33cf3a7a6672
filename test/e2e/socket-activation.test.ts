// Listening sockets that a service manager made: lb serves them, and leaves them unchanged when it stops.
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { parseEndpoint, type Endpoint } from "../../src/core/address.ts";
import { openLibc } from "../../src/platform/libc.ts";
import { closeDescriptor, listenOn } from "../../src/platform/sockets.ts";
import { tagged } from "../support/backends.ts";
import { connect } from "../support/client.ts";
import { freePort, startLb } from "../support/lb.ts";
import { pythonMissing } from "../support/tcp-peer.ts";

let folder: string;
const fds: number[] = [];

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "lb-activation-"));
});
afterEach(() => {
  for (const fd of fds.splice(0)) closeDescriptor(fd);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

// Like a service manager: the descriptors from 3 on, their number and the pid in the environment, then exec. The sockets belong to this
// process, which keeps them while one lb after another serves them (pidfd_getfd(2)).
const PASS = `
import ctypes, fcntl, os, sys
pid, fds, argv = int(sys.argv[1]), [int(fd) for fd in sys.argv[2].split(",")], sys.argv[3:]
handle = os.pidfd_open(pid)
libc = ctypes.CDLL(None, use_errno=True)
got = [libc.syscall(438, handle, fd, 0) for fd in fds]
assert min(got) >= 0, os.strerror(ctypes.get_errno())
kept = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100) for fd in got]
for number, fd in enumerate(kept): os.dup2(fd, 3 + number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)))
os.execvp(argv[0], argv)
`;

/** A command that passes the sockets to the lb that it runs. */
function passing(...passed: number[]): string[] {
  return ["python3", "-c", PASS, String(process.pid), passed.join(",")];
}

const F_SETFL = 4;

/** A listening socket of this process, alone at its address and blocking, as a service manager makes it. */
function listening(address: string): number {
  const fd = listenOn(parseEndpoint(address) as Endpoint, 128, false);
  if (typeof fd !== "number") throw new Error(`${address}: ${fd.call} ${fd.code}`);
  openLibc()!.fcntl(fd, F_SETFL, 0);
  fds.push(fd);
  return fd;
}

const config = (binds: string[], backend: string) => `
  workers = 2
  shutdown_timeout = "5s"
  [listeners.web]
  bind = [${binds.map((bind) => `"${bind}"`).join(", ")}]
  pool = "app"
  [pools.app]
  backends = ["${backend}"]`;

test.skipIf(pythonMissing !== null)(
  "serves sockets of a service manager, and its successor accepts what comes in between",
  async () => {
    using backend = await tagged("A");
    const [port, dual] = [await freePort(), await freePort()];
    const path = join(folder, "lb.sock");
    const bind = [`127.0.0.1:${port}`, `unix:${path}`, `:${dual}`];
    const wrapper = passing(...bind.map(listening));
    const first = await startLb(config(bind, backend.address), { wrapper });
    await using _ = first;
    for (let i = 0; i < 8; i++) {
      using client = await connect(i % 2 === 0 ? port : dual);
      expect(await client.line()).toBe("A");
    }
    expect(first.log().filter(({ level }) => level === "warn")).toEqual([]);
    first.signal("SIGTERM");
    expect(await first.exited).toEqual({ code: 0, signal: null });
    // Nobody accepts now, and the kernel still completes handshakes.
    using waiting = await connect(port);
    expect(statSync(path).isSocket()).toBe(true);
    await using second = await startLb(config(bind, backend.address), { wrapper });
    expect(await waiting.line()).toBe("A");
    expect((await second.status()).listeners[0]!.accepted).toBeGreaterThan(0);
  },
);

test.skipIf(pythonMissing !== null)("keeps a socket that a reload does not use, for a later reload", async () => {
  using backend = await tagged("A");
  const [passed, other] = [await freePort(), await freePort()];
  const wrapper = passing(listening(`127.0.0.1:${passed}`));
  await using lb = await startLb(config([`127.0.0.1:${passed}`], backend.address), { wrapper });
  expect((await lb.reload(config([`127.0.0.1:${other}`], backend.address))).ok).toBe(true);
  using waiting = await connect(passed);
  expect((await lb.reload(config([`127.0.0.1:${passed}`], backend.address))).ok).toBe(true);
  expect(await waiting.line()).toBe("A");
});

test.skipIf(pythonMissing !== null)("names a socket that no listener uses", async () => {
  using backend = await tagged("A");
  const [bound, unused] = [await freePort(), await freePort()];
  const wrapper = passing(listening(`127.0.0.1:${unused}`));
  await using lb = await startLb(config([`127.0.0.1:${bound}`], backend.address), { wrapper });
  const line = await lb.waitLog(({ event }) => event === "a socket from the service manager is not used");
  expect(line).toMatchObject({ level: "warn", address: `127.0.0.1:${unused}` });
});
