// A program of the tests in this folder, for tests that need a process of their own: a network namespace with addresses that the machine
// does not have, or a low limit of open files. Prints its result as JSON.
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { adoptConnecting, listenOnDescriptor } from "../../src/platform/bun.ts";
import { errnoName } from "../../src/platform/libc.ts";
import { beginConnect, closeDescriptor, listenOn, sockaddr } from "../../src/platform/sockets.ts";
import { setAffinity } from "../../src/platform/socket-bpf.ts";
import { endpoint } from "../support/endpoints.ts";

/** How a connect fails: the errno's name, or "connected". */
async function connectError(to: string): Promise<string> {
  const fd = beginConnect(sockaddr(endpoint(to)), null);
  if (fd < 0) return errnoName(-fd);
  const { promise, resolve } = Promise.withResolvers<string>();
  adoptConnecting(fd, null, {
    binaryType: "uint8array",
    open: () => {},
    drain: () => resolve("connected"),
    data: () => resolve("connected"),
    close: (_, error) => resolve((error as { code?: string } | undefined)?.code ?? "none"),
    connectError: (_, error) => resolve((error as { code?: string }).code ?? "none"),
    error: () => {},
  });
  return promise;
}

function ip(...args: string[]): void {
  const { status, stderr } = spawnSync("ip", args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`ip ${args.join(" ")}: ${stderr}`);
}

/** Which of four sockets gets the connections of each source, four from each. */
async function spreadIPv6(sources: readonly string[]): Promise<Record<string, string[]>> {
  const port = 7000;
  const fds = Array.from({ length: 4 }, () => listenOn({ kind: "any", port }, 64) as number);
  fds.forEach((fd, by) =>
    listenOnDescriptor(fd, null, {
      binaryType: "uint8array",
      open: (socket) => void socket.write(String(by)),
      data: () => {},
      error: () => {},
    }),
  );
  setAffinity(fds[0]!, "client", 4, 4);
  const takers: Record<string, string[]> = {};
  for (const localAddress of sources) {
    takers[localAddress] = [];
    for (let i = 0; i < 4; i++) {
      const peer = connect({ host: "fd00::1", port, localAddress });
      takers[localAddress].push(String((await once(peer, "data"))[0]));
      peer.destroy();
    }
  }
  return takers;
}

async function inNamespace(sources: readonly string[]): Promise<unknown> {
  const withoutRoute = await connectError("192.0.2.1:80");
  ip("link", "set", "lo", "up");
  for (const address of ["fd00::1", ...sources]) ip("-6", "addr", "add", `${address}/128`, "dev", "lo", "nodad");
  ip("route", "add", "unreachable", "198.51.100.0/24");
  ip("route", "add", "prohibit", "203.0.113.0/24");
  return {
    withoutRoute,
    unreachable: await connectError("198.51.100.1:80"),
    prohibited: await connectError("203.0.113.1:80"),
    nobody: await connectError("127.0.0.1:9"),
    nobodyIPv6: await connectError("[::1]:9"),
    takers: await spreadIPv6(sources),
  };
}

/** Connects until there are no descriptors left, and again when one is free. */
async function withFewFiles(): Promise<unknown> {
  const listener = listenOn({ kind: "any", port: 0 }, 64);
  const opened: number[] = [];
  const blackholed = sockaddr(endpoint("unix:@lb-few-files-nobody"));
  let answer = 0;
  while (opened.length < 10_000) {
    answer = listenOn({ kind: "abstract", name: `lb-few-files-${process.pid}-${opened.length}` }, 1) as number;
    if (typeof answer !== "number") break;
    opened.push(answer);
  }
  const connecting = errnoName(-beginConnect(blackholed, null));
  closeDescriptor(opened.pop()!);
  const again = errnoName(-beginConnect(blackholed, null));
  return { listening: answer, connecting, again, opened: opened.length, listener: typeof listener };
}

const [what, ...args] = process.argv.slice(2);
const seen = what === "namespace" ? await inNamespace(args) : await withFewFiles();
process.stdout.write(JSON.stringify(seen), () => process.exit(0));
