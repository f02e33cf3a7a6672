// The user-space memory of an open connection without traffic; the kernel's share is the same for all.
import { haproxy, lb, nginx, type Contender } from "../contenders.ts";
import { Load, withLoad } from "../load.ts";
import { openFilesMax } from "../procstat.ts";
import type { Scenario } from "../scenario.ts";

const idleConnections = 5000;
/** Number of connections that are opened before the first reading, and kept. */
const warmConnections = 1000;
/** Time for a proxy to free what it needed only to open them. */
const settleMs = 2000;

export const memory = memoryOf({ name: "memory", contenders: [lb, haproxy, nginx] });

export interface IdleMemory {
  name: string;
  contenders: Contender[];
  tls?: boolean;
}

export function memoryOf({ name, contenders, tls = false }: IdleMemory): Scenario {
  const over = tls ? " over TLS" : "";
  return {
    name,
    about:
      `Anonymous and shared memory (smaps_rollup) before and after ${idleConnections} connections${over}, each of which carried ` +
      `one request, ${settleMs / 1000} s later, beside ${warmConnections} opened before; in all: the proportional set size then.`,
    contenders,
    ignoresOthers: true,
    metrics: [
      { key: "each", title: `memory per idle connection${over}`, unit: "KiB", better: "lower", wanted: 1 },
      {
        key: "total",
        title: `memory in all, ${idleConnections + warmConnections} idle connections${over}`,
        unit: "MiB",
        better: "lower",
      },
      {
        key: "empty",
        title: `memory in all, no connection${tls ? ", listener with TLS" : ""}`,
        unit: "MiB",
        better: "lower",
      },
      {
        key: "base",
        title: `memory in all, ${warmConnections} idle connections${tls ? ", listener with TLS" : ""}`,
        unit: "MiB",
        better: "lower",
      },
    ],
    async measure(bench, proxy) {
      if (openFilesMax() < 2 * (idleConnections + warmConnections) + 1000)
        throw new Error("the limit of open files (ulimit -Hn) is too low");
      await Bun.sleep(settleMs);
      const empty = proxy.memory();
      const load = new Load(bench, "idle", { port: proxy.port, connections: idleConnections, warmConnections, tls });
      return await withLoad(load, async () => {
        await Bun.sleep(settleMs);
        const before = proxy.memory();
        await load.step();
        await Bun.sleep(settleMs);
        const after = proxy.memory();
        return {
          each: (after.data - before.data) / idleConnections / 1024,
          total: after.total / 2 ** 20,
          base: before.total / 2 ** 20,
          empty: empty.total / 2 ** 20,
        };
      });
    },
  };
}
