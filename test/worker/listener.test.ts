// What a listener expects of a client whose address is in the ledger, and where it routes it. Limits are in admission.test.ts.
import { describe, expect, test } from "vitest";
import { parseAddress, parseCidr } from "../../src/core/address.ts";
import { cidrTable, type CidrTable } from "../../src/core/cidr-set.ts";
import { dryRunBit } from "../../src/core/dry-run.ts";
import type { ListenerPlan, RoutePlan } from "../../src/messages.ts";
import { bandwidthMemory } from "../../src/shared/bandwidth.ts";
import { CLIENT_TABLE_FULL } from "../../src/shared/clients.ts";
import { LISTENER } from "../../src/shared/counters.ts";
import { ROW, ROW_WORDS } from "../../src/shared/ledger.ts";
import { noteDryRun } from "../../src/worker/admission.ts";
import { ListenerBandwidth } from "../../src/worker/listener-bandwidth.ts";
import { Listener } from "../../src/worker/listener.ts";
import { Pool } from "../../src/worker/pool.ts";
import type { Host } from "../../src/worker/session.ts";
import { listenerPlan, poolPlan } from "../support/plans.ts";

const ROW_USED = 3;

const table = (text: string): CidrTable => {
  const cidr = parseCidr(text);
  if ("bad" in cidr) throw new Error(cidr.bad);
  return cidrTable([cidr])!;
};

/** The cells of a ledger with this client in row ROW_USED. */
function wordsOf(address: string, port = 999): Int32Array {
  const words = new Int32Array(ROW_WORDS * (ROW_USED + 1));
  // A unix peer is all zeros.
  if (address !== "unix") words.set([...parseAddress(address)!, port], ROW_USED * ROW_WORDS + ROW.address);
  return words;
}

const listener = (given: Partial<ListenerPlan> = {}, worker = 0): Listener =>
  new Listener(listenerPlan(given), new Map(), null, worker);

test("a PROXY header is expected from trusted peers, and from those on a unix socket", () => {
  const trusted = { trustedProxies: table("10.0.0.0/8") };
  const expected = (proxyProtocol: "off" | "optional" | "required", address: string): string =>
    listener({ ...trusted, proxyProtocol }).expectsProxyHeader(wordsOf(address), ROW_USED);
  expect([expected("off", "10.0.0.1"), expected("off", "192.0.2.1")]).toEqual(["no", "no"]);
  expect([expected("optional", "10.0.0.1"), expected("optional", "192.0.2.1")]).toEqual(["optional", "no"]);
  expect([expected("required", "10.0.0.1"), expected("required", "192.0.2.1")]).toEqual(["required", "untrusted"]);
  expect([expected("optional", "unix"), expected("required", "unix")]).toEqual(["optional", "required"]);
});

describe("the ClientHello", () => {
  const route = (given: Partial<RoutePlan>): RoutePlan => ({ sni: [], alpn: [], clients: null, pool: 1, ...given });

  test("is read only if a route or the hash depends on it", () => {
    expect(listener().readsHello).toBe(false);
    expect(listener({ routes: [route({ clients: table("10.0.0.0/8") })] }).readsHello).toBe(false);
    expect(listener({ routes: [route({ sni: ["a.example"] })] }).readsHello).toBe(true);
    expect(listener({ routes: [route({ alpn: ["h2"] })] }).readsHello).toBe(true);
    expect(listener({ hashesSni: true }).readsHello).toBe(true);
  });

  test("chooses the pool together with the client's address; the listener's pool is the default", () => {
    const [own, other] = [poolPlan(), poolPlan()];
    const pools = new Map([own, other].map((plan) => [plan.id, new Pool(plan, null, 0)]));
    const routes = [route({ sni: ["a.example"], clients: table("10.0.0.0/8"), pool: other.id })];
    const made = new Listener(listenerPlan({ pool: own.id, routes }), pools, null, 0);
    const chosen = (address: string, sni: string) => made.routeFor(wordsOf(address), ROW_USED, sni, [])?.plan.id;
    expect(chosen("10.0.0.1", "a.example")).toBe(other.id);
    expect(chosen("10.0.0.1", "b.example")).toBe(own.id);
    expect(chosen("10.0.0.1", "")).toBe(own.id);
    expect(chosen("192.0.2.1", "a.example")).toBe(own.id);
  });
});

test("each worker counts in a row of its own", () => {
  const plan = listenerPlan();
  const [first, second] = [0, 1].map((worker) => new Listener(plan, new Map(), null, worker));
  second!.counters[LISTENER.accepted]!++;
  expect(first!.counters[LISTENER.accepted]).toBe(0);
  expect(plan.counters[LISTENER.size + LISTENER.accepted]).toBe(1);
});

test("a bandwidth limit per client applies to clients that have an entry in the table", () => {
  const plan = { upload: 0, download: 1_000_000, per: "client", memory: bandwidthMemory(2) } as const;
  const bandwidth = new ListenerBandwidth(plan, false);
  const [first, second] = [0, 1].map((entry) => bandwidth.limit("download", entry, 0)!);
  first!.reserve(50_000, performance.now(), false);
  expect(first!.saved(performance.now())).toBeLessThan(second!.saved(performance.now()));
  expect(bandwidth.limit("download", CLIENT_TABLE_FULL, 0)).toBeNull();
  expect(bandwidth.limit("upload", 0, 0)).toBeNull();
});

test("a limit in dry_run counts once for each connection that it would have acted on", () => {
  const made = listener();
  const words = wordsOf("10.0.0.1");
  const host = { words } as Host;
  const [rate, bandwidth] = [dryRunBit("rate_limit"), dryRunBit("bandwidth")];
  for (const bits of [bandwidth, bandwidth, rate | bandwidth]) noteDryRun(host, made, ROW_USED, bits);
  expect(words[ROW_USED * ROW_WORDS + ROW.dryRun]).toBe(rate | bandwidth);
  expect([...made.counters.subarray(LISTENER.dryRun, LISTENER.dryRun + 3)]).toEqual([1, 0, 1]);
});
