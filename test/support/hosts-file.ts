// Names that a test defines: an /etc/hosts, and an /etc/resolv.conf, that only the process under test sees.
import { spawnSync } from "node:child_process";
import { rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "./lb.ts";

/** An /etc/hosts of the test. The wrapper mounts it over the machine's, in a mount namespace. */
export async function hostsFile(resolvConf = "") {
  const file = join(tmpdir(), `lb-hosts-${process.pid}-${await freePort()}`);
  // Always the same length, and overwritten in one write: a lookup must never read half a file.
  const text = (...lines: string[]): string => ["127.0.0.1 localhost", ...lines].join("\n").padEnd(500, "\n");
  await writeFile(file, text());
  await writeFile(`${file}.resolv`, resolvConf);
  const wrapper = [
    "unshare",
    "-m",
    "sh",
    "-c",
    `mount --bind ${file} /etc/hosts && mount --bind ${file}.resolv /etc/resolv.conf && exec "$@"`,
    "--",
  ];
  const tried = spawnSync(wrapper[0]!, [...wrapper.slice(1), "true"]);
  return {
    wrapper,
    /** Why this machine does not support it, or null. */
    trouble: tried.status === 0 ? null : `no mount namespace here: ${String(tried.error ?? tried.stderr).trim()}`,
    write: (...lines: string[]) => writeFile(file, text(...lines), { flag: "r+" }),
    [Symbol.asyncDispose]: async () => {
      await rm(file, { force: true });
      await rm(`${file}.resolv`, { force: true });
    },
  };
}

/** A name server that never answers, or null if its port is not available on this machine. */
export async function silentServer() {
  const server = { address: "127.0.7.53", asked: 0 };
  try {
    const socket = await Bun.udpSocket({
      hostname: server.address,
      port: 53,
      socket: { data: () => void server.asked++ },
    });
    return Object.assign(server, {
      [Symbol.asyncDispose]: () => {
        socket.close();
        return Promise.resolve();
      },
    });
  } catch {
    return null;
  }
}
