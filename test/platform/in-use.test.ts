import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { formatAddress } from "../../src/core/address.ts";
import { isOwnSocket, isSame, listeningWith, stateOfSocketFile } from "../../src/platform/in-use.ts";
import { beginConnect, closeDescriptor, ownSockets, sockaddr } from "../../src/platform/sockets.ts";
import { endpoint, listenAt, skipWithoutIPv6 } from "../support/endpoints.ts";
import { freePort } from "../support/lb.ts";
import { calledAfterEach } from "../support/set-up.ts";

const atEnd = calledAfterEach();

function listening(text: string, backlog?: number): number {
  const fd = listenAt(text, backlog);
  atEnd.push(() => closeDescriptor(fd));
  return fd;
}

const found = (text: string): string[] => listeningWith(endpoint(text)).map(({ address }) => formatAddress(...address));

describe.skipIf(!ownSockets())("listening sockets", () => {
  test("are found by their own address and port, and no other", async () => {
    const port = await freePort();
    listening(`127.0.0.1:${port}`);
    expect(found(`127.0.0.1:${port}`)).toEqual(["127.0.0.1"]);
    expect(found(`127.0.0.2:${port}`)).toEqual([]);
    expect(found(`[::1]:${port}`)).toEqual([]);
    expect(found(`127.0.0.1:${await freePort()}`)).toEqual([]);
    expect(found("unix:/run/app.sock")).toEqual([]);
  });

  test("are found by a wildcard of the port, and find one", async (context) => {
    skipWithoutIPv6(context);
    const port = await freePort();
    listening(`127.0.0.1:${port}`);
    listening(`[::1]:${port}`);
    expect(found(`0.0.0.0:${port}`)).toEqual(["127.0.0.1"]);
    expect(found(`:${port}`).toSorted()).toEqual(["127.0.0.1", "::1"]);

    const other = await freePort();
    listening(`0.0.0.0:${other}`);
    expect(found(`127.0.0.1:${other}`)).toEqual(["0.0.0.0"]);
    // "0.0.0.0" does not include IPv6.
    expect(found(`[::1]:${other}`)).toEqual([]);

    const dual = await freePort();
    listening(`:${dual}`);
    for (const host of ["127.0.0.1", "0.0.0.0", "[::1]"]) expect(found(`${host}:${dual}`)).toEqual(["::"]);
  });

  test("belong to this process while it has a descriptor", async () => {
    const port = await freePort();
    const fd = listenAt(`127.0.0.1:${port}`);
    const [socket] = listeningWith(endpoint(`127.0.0.1:${port}`));
    expect(isOwnSocket(socket!.inode)).toBe(true);
    closeDescriptor(fd);
    expect(isOwnSocket(socket!.inode)).toBe(false);
    expect(found(`127.0.0.1:${port}`)).toEqual([]);
  });

  test("of another process are found and do not belong to this one", async () => {
    const port = await freePort();
    const script = `Bun.listen({ hostname: "127.0.0.1", port: ${port}, socket: { data() {} } }); console.log("listening");`;
    const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe" });
    atEnd.push(async () => {
      child.kill("SIGKILL");
      await child.exited;
    });
    await child.stdout.getReader().read();
    const [socket] = listeningWith(endpoint(`127.0.0.1:${port}`));
    expect(socket!.inode).toBeGreaterThan(0);
    expect(isOwnSocket(socket!.inode)).toBe(false);
  });
});

describe.skipIf(!ownSockets())("a unix socket's file", () => {
  function socketPath(): string {
    const folder = mkdtempSync(join(tmpdir(), "lb-in-use-"));
    atEnd.push(() => rmSync(folder, { recursive: true }));
    return join(folder, "app.sock");
  }

  test("is listening while a process listens, also with a full queue", () => {
    const path = socketPath();
    listening(`unix:${path}`, 0);
    expect(stateOfSocketFile(path)).toBe("listening");
    const to = sockaddr({ kind: "unix", path });
    for (let fd = beginConnect(to, null); fd >= 0; fd = beginConnect(to, null)) {
      const connected = fd;
      atEnd.push(() => closeDescriptor(connected));
    }
    expect(stateOfSocketFile(path)).toBe("listening");
  });

  test("is abandoned when nobody listens any more", () => {
    const path = socketPath();
    closeDescriptor(listenAt(`unix:${path}`));
    expect(stateOfSocketFile(path)).toBe("abandoned");
  });

  test("gives the errno's name for anything else", () => {
    expect(stateOfSocketFile(socketPath())).toBe("ENOENT");
  });
});

test("addresses are the same if all four words are", () => {
  expect(isSame([0, 0, 0xffff, 1], [0, 0, 0xffff, 1])).toBe(true);
  for (let word = 0; word < 4; word++) {
    const other: [number, number, number, number] = [0, 0, 0xffff, 1];
    other[word]! += 7;
    expect(isSame([0, 0, 0xffff, 1], other)).toBe(false);
  }
});
