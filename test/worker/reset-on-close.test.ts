// On real sockets: what the peer of a socket sees when its descriptor is closed.
import type { Socket as Peer } from "node:net";
import { describe, expect, test } from "vitest";
import { ownSockets, resetOnClose } from "../../src/platform/sockets.ts";
import {
  allowBackendFin,
  allowClientFin,
  resetBackendOnClose,
  type ResetState,
} from "../../src/worker/reset-on-close.ts";
import { accepting, type Accepted } from "../support/accepting.ts";
import { freePort } from "../support/lb.ts";
import { calledAfterEach } from "../support/set-up.ts";

const atEnd = calledAfterEach();
const { listening, serve, visit } = accepting(atEnd);

/** A connected socket and what its peer sees once it is closed. */
async function connected(): Promise<{ fd: number; closed: () => Promise<string> }> {
  const port = await freePort();
  const accepted: Accepted[] = [];
  const listener = serve(listening(`127.0.0.1:${port}`), accepted);
  const { peer } = await visit({ host: "127.0.0.1", port });
  const seen = endOf(peer);
  return { fd: accepted[0]!.fd, closed: () => (listener.stop(true), seen) };
}

function endOf(peer: Peer): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  peer.on("end", () => resolve("FIN")).on("error", (error) => resolve((error as { code?: string }).code ?? "?"));
  return promise;
}

const stateOf = (given: Partial<ResetState>): ResetState => ({
  clientFd: -1,
  backendFd: -1,
  resetsBackend: false,
  ...given,
});

describe.skipIf(!ownSockets())("the client's socket", () => {
  test("inherits the reset from the listening socket, and sends a FIN once that is allowed", async () => {
    for (const [allow, end] of [
      [false, "ECONNRESET"],
      [true, "FIN"],
    ] as const) {
      const { fd, closed } = await connected();
      resetOnClose(fd);
      if (allow) allowClientFin(stateOf({ clientFd: fd }));
      expect(await closed()).toBe(end);
    }
  });
});

describe.skipIf(!ownSockets())("the backend's socket", () => {
  test("is closed with a FIN while the connection is young", async () => {
    const { closed } = await connected();
    expect(await closed()).toBe("FIN");
  });

  test("is closed with a reset later on", async () => {
    const { fd, closed } = await connected();
    const state = stateOf({ backendFd: fd });
    resetBackendOnClose(state);
    expect(state.resetsBackend).toBe(true);
    expect(await closed()).toBe("ECONNRESET");
  });

  test("is closed with a FIN once lb may send one", async () => {
    const { fd, closed } = await connected();
    const state = stateOf({ backendFd: fd });
    resetBackendOnClose(state);
    allowBackendFin(state);
    expect(state.resetsBackend).toBe(false);
    expect(await closed()).toBe("FIN");
  });

  test("is not changed by a second call of each", async () => {
    const [first, second] = [await connected(), await connected()];
    // The state says that the option is already set or cleared, so there is no system call.
    resetBackendOnClose(stateOf({ backendFd: first.fd, resetsBackend: true }));
    expect(await first.closed()).toBe("FIN");
    resetOnClose(second.fd);
    allowBackendFin(stateOf({ backendFd: second.fd }));
    expect(await second.closed()).toBe("ECONNRESET");
  });

  test("is not touched without a descriptor", () => {
    const state = stateOf({});
    resetBackendOnClose(state);
    allowClientFin(state);
    allowBackendFin(state);
    expect(state.resetsBackend).toBe(false);
  });
});
