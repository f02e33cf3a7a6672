// TLS handshakes that resume a session: the cost of a returning client. TLS 1.3 still agrees on new keys (psk_dhe_ke), TLS 1.2 does not.
import { withTls } from "../contenders.ts";
import { measureHandshakes, settled } from "../handshakes.ts";
import type { Metric, Readings, Scenario } from "../scenario.ts";
import type { TlsVersion } from "../load/tls.ts";

const versions: TlsVersion[] = ["1.3", "1.2"];

export const tlsResumed: Scenario = {
  name: "tls-resumed",
  about: `Each request on a new TLS connection that resumes a session by its ticket; ${settled("1.3")}, then ${settled("1.2")}.`,
  contenders: withTls("ecdsa"),
  metrics: versions.flatMap((version): Metric[] => {
    const title = `resumed handshakes, TLS ${version}`;
    return [
      { key: `cpu ${version}`, title: `CPU per million ${title}`, unit: "CPU s", better: "lower" },
      { key: `rate ${version}`, title, unit: "handshakes/s", better: "higher" },
      { key: `busy ${version}`, title: `${title}: proxy's CPU in use`, unit: "%", better: "neither" },
    ];
  }),
  async measure(bench, proxy) {
    const readings: Readings = {};
    for (const version of versions) {
      const measured = await measureHandshakes(bench, proxy, { version, resume: true });
      for (const [key, value] of Object.entries(measured)) readings[`${key} ${version}`] = value;
    }
    return readings;
  },
};
