// The number of system calls of a proxy per connection and per request: the most informative figure that does not depend on how busy the
// machine is. strace counts them over all threads, for an exact number of exchanges.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { haproxy, lb, nginx } from "../contenders.ts";
import { Load, withLoad } from "../load.ts";
import { Process } from "../processes.ts";
import type { Bench, Scenario } from "../scenario.ts";
import type { Running } from "../site.ts";
import { callsPer, type Calls } from "../strace.ts";

const connectionsCounted = 800;
const requestsCounted = 4000;
const atOnce = 8;

/** Calls in which a thread waits: their number depends on how events coincide. */
const waits = new Set([
  ...["epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "futex", "restart_syscall", "rt_sigreturn"],
  ...["nanosleep", "clock_nanosleep", "sched_yield"],
]);

const inDetail = new Map<string, string>();

export const syscalls: Scenario = {
  name: "syscalls",
  about:
    `strace -c over ${connectionsCounted} connections with one request each, and over ${requestsCounted} requests on ` +
    `${atOnce} connections; ${atOnce} at once. Waiting calls (epoll_wait, futex and their like) are counted apart.`,
  contenders: [lb, haproxy, nginx],
  ignoresOthers: true,
  metrics: [
    { key: "connection", title: "system calls per connection", unit: "calls", better: "lower" },
    { key: "connectionWaits", title: "waiting calls per connection", unit: "calls", better: "neither" },
    { key: "request", title: "system calls per request", unit: "calls", better: "lower" },
    { key: "requestWaits", title: "waiting calls per request", unit: "calls", better: "neither" },
  ],
  async measure(bench, proxy, contender) {
    const connection = await count(bench, proxy, { exchanges: connectionsCounted, close: true });
    const request = await count(bench, proxy, { exchanges: requestsCounted, close: false });
    inDetail.set(`${contender.name}, per connection`, describe(connection));
    inDetail.set(`${contender.name}, per request`, describe(request));
    return {
      connection: sum(connection, (name) => !waits.has(name)),
      connectionWaits: sum(connection, (name) => waits.has(name)),
      request: sum(request, (name) => !waits.has(name)),
      requestWaits: sum(request, (name) => waits.has(name)),
    };
  },
  remarks: () => [...inDetail].map(([what, calls]) => `system calls of ${what}: ${calls}`),
};

async function count(
  bench: Bench,
  proxy: Running,
  { exchanges, close }: { exchanges: number; close: boolean },
): Promise<Calls> {
  const load = new Load(bench, "exchange", { port: proxy.port, exchanges, atOnce, close });
  return await withLoad(load, async () => {
    const file = join(bench.playground.folder, "strace.txt");
    const pids = proxy.pids();
    const command = ["strace", "-c", "-f", "-o", file, ...pids.flatMap((pid) => ["-p", String(pid)])];
    const strace = new Process({ command, cpus: bench.playground.placement.load });
    try {
      await strace.hasComplained(" attached", pids.length);
      const done = await load.step<{ exchanges: number }>();
      strace.interrupt();
      await strace.ended();
      return callsPer(done.exchanges, readFileSync(file, "utf8"));
    } finally {
      await strace.stop();
    }
  });
}

function sum(calls: Calls, counts: (name: string) => boolean): number {
  return [...calls].filter(([name]) => counts(name)).reduce((total, [, count]) => total + count, 0);
}

function describe(calls: Calls): string {
  return [...calls]
    .filter(([, count]) => count >= 0.05)
    .toSorted(([, a], [, b]) => b - a)
    .map(([name, count]) => `${name} ${count.toFixed(1)}`)
    .join(", ");
}
