// Full TLS handshakes: the cost of a new client.
import { keyTitles, type KeyType } from "../certificates.ts";
import { withTls } from "../contenders.ts";
import { libraries, measureHandshakes, settled } from "../handshakes.ts";
import type { Scenario } from "../scenario.ts";

export const tlsHandshakes: Scenario = {
  ...handshakesOf("tls-handshakes", "ecdsa"),
  remarks: () => [libraries()],
};
export const tlsHandshakesRsa = handshakesOf("tls-handshakes-rsa", "rsa");

function handshakesOf(name: string, key: KeyType): Scenario {
  const title = `full handshakes, ${keyTitles[key]}`;
  return {
    name,
    about: `Each request on a new TLS connection with a full handshake, ${keyTitles[key]}; ${settled("1.3")}.`,
    contenders: withTls(key),
    metrics: [
      { key: "cpu", title: `CPU per million ${title}`, unit: "CPU s", better: "lower", wanted: 0.75 },
      { key: "rate", title, unit: "handshakes/s", better: "higher" },
      { key: "busy", title: `${title}: proxy's CPU in use`, unit: "%", better: "neither" },
    ],
    measure: (bench, proxy) => measureHandshakes(bench, proxy, { version: "1.3", resume: false }),
  };
}
