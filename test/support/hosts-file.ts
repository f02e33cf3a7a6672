// Names as a test wants them: an /etc/hosts, and an /etc/resolv.conf, that the process under test alone sees.
import { spawnSync } from "node:child_process";
import { rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "./lb.ts";

/** An /etc/hosts of the test's own. The wrapper puts it in the place of the machine's, in a mount namespace. */
export async function hostsFile(resolvConf = "") {
  const file = join(tmpdir(), `lb-hosts-${process.pid}-${await freePort()}`);
  // Always as long, and written over in one go: a look-up must never meet a file that is only half there.
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
    /** Why it cannot be had on this machine, or null. */
    trouble: tried.status === 0 ? null : `no mount namespace here: ${String(tried.stderr).trim()}`,
    write: (...lines: string[]) => writeFile(file, text(...lines), { flag: "r+" }),
    [Symbol.asyncDispose]: async () => {
      await rm(file, { force: true });
      await rm(`${file}.resolv`, { force: true });
    },
  };
}

/** A name server that answers nothing, or null where this machine lets nobody have its port. */
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
