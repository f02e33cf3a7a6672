import { describe, expect, test } from "vitest";
import { parseCidr } from "../../src/core/address.ts";
import { cidrTable } from "../../src/core/cidr-set.ts";
import type { AccessFilter } from "../../src/messages.ts";
import type { AccessLine } from "../../src/observe/access-line.ts";
import { accepts } from "../../src/observe/access-filter.ts";

const ANY: AccessFilter = { listener: null, pool: null, backends: null, clients: null, end: null, minDurationMs: 0 };

const line: AccessLine = {
  timeMs: 0,
  id: 1,
  listener: "web",
  pool: "app",
  backend: "db/10.0.0.1:80",
  client: "10.0.0.7:4711",
  end: "eof",
  durationMs: 1500,
  peer: "",
  sni: "",
  tls: "",
  clientCert: "",
  queueMs: 0,
  connectMs: 1,
  bytesIn: 1,
  bytesOut: 1,
  retries: 0,
  dryRun: "",
  worker: 0,
  endBy: "client",
  error: "",
};

const has = (filter: Partial<AccessFilter>, given: Partial<AccessLine> = {}): boolean =>
  accepts({ ...ANY, ...filter }, { ...line, ...given });

describe("a filter of access lines", () => {
  test("without conditions takes every line", () => {
    expect(has({})).toBe(true);
  });

  test.each<[Partial<AccessFilter>, Partial<AccessFilter>]>([
    [{ listener: "web" }, { listener: "we" }],
    [{ pool: "app" }, { pool: "api" }],
    [{ end: "eof" }, { end: "reset" }],
    [{ minDurationMs: 1500 }, { minDurationMs: 1501 }],
    [{ backends: ["db/10.0.0.1:80"] }, { backends: ["db/10.0.0.1"] }],
    [{ backends: ["x", "db"] }, { backends: ["d"] }],
    [{ backends: ["db"] }, { backends: [] }],
  ])("takes a line for %j and not for %j", (fits, misses) => {
    expect([has(fits), has(misses)]).toEqual([true, false]);
    expect(has({ ...fits, ...misses })).toBe(false);
  });

  test("compares the client's address without its port", () => {
    const clients = clientsIn("10.0.0.0/8", "2001:db8::/32");
    expect(has({ clients })).toBe(true);
    expect(has({ clients }, { client: "[2001:db8::1]:4711" })).toBe(true);
    expect(has({ clients }, { client: "192.0.2.1:4711" })).toBe(false);
    expect(has({ clients }, { client: "[2001:db9::1]:4711" })).toBe(false);
    expect(has({ clients }, { client: "unix" })).toBe(false);
  });
});

function clientsIn(...cidrs: string[]): AccessFilter["clients"] {
  return cidrTable(
    cidrs.map((text) => {
      const cidr = parseCidr(text);
      if ("bad" in cidr) throw new Error(cidr.bad);
      return cidr;
    }),
  );
}
