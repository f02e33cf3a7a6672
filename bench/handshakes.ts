// Shared by the scenarios of TLS handshakes: one run of handshakes of one kind, with the proxy's CPU time.
import { Load, withLoad } from "./load.ts";
import type { TlsVersion } from "./load/tls.ts";
import { versionOf } from "./machine.ts";
import { cpuWhile } from "./procstat.ts";
import type { Bench, Readings } from "./scenario.ts";
import type { Running } from "./site.ts";

const atOnce = 32;

export interface Handshakes {
  version: TlsVersion;
  /** Whether the handshakes resume sessions. */
  resume: boolean;
}

/** The settings of every handshake of the bench, in words for the report. */
export function settled(version: TlsVersion): string {
  return `TLS ${version}, AES-256-GCM with SHA-384, X25519, ${atOnce} at a time`;
}

/** The TLS library of each proxy, for the report. */
export function libraries(): string {
  const haproxy = versionOf(["haproxy", "-vv"], /^Running on .* version : (.+)$/m) ?? "not here";
  const nginx = versionOf(["nginx", "-V"], /(?:running|built) with ([^()\n]+)\)?$/m) ?? "not here";
  return `TLS: lb has BoringSSL ${process.versions["boringssl"]?.slice(0, 12) ?? ""}, HAProxy ${haproxy}, nginx ${nginx}`;
}

/** CPU seconds per million handshakes, handshakes per second, and the CPU utilization of the proxy. */
export async function measureHandshakes(bench: Bench, proxy: Running, kind: Handshakes): Promise<Readings> {
  const { warmSeconds, seconds } = bench.options;
  const load = new Load(bench, "handshakes", { port: proxy.port, atOnce, ...kind, warmSeconds, seconds });
  return await withLoad(load, async () => {
    const run = () => load.step<{ handshakes: number; resumed: number; seconds: number }>();
    const { result, cpuNanoseconds, busyShare } = await cpuWhile(proxy, run);
    const { handshakes, resumed } = result;
    const wanted = kind.resume ? handshakes : 0;
    if (resumed !== wanted) throw new Error(`${resumed} of ${handshakes} handshakes were resumed, not ${wanted}`);
    return {
      cpu: (cpuNanoseconds / 1e9 / handshakes) * 1e6,
      rate: handshakes / result.seconds,
      busy: busyShare * 100,
    };
  });
}
