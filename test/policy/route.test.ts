import { describe, expect, test } from "vitest";
import { parseAddress, parseCidr } from "../../src/core/address.ts";
import type { Cidr } from "../../src/core/address.ts";
import { cidrTable } from "../../src/core/cidr-set.ts";
import type { Route, RouteFacts } from "../../src/policy/route.ts";
import { canonicalName, chooseRoute, nameMatches } from "../../src/policy/route.ts";

const route = (pool: number, conditions: Partial<Route>): Route => ({
  sni: [],
  alpn: [],
  clients: null,
  pool,
  ...conditions,
});

const clients = (...texts: string[]) => cidrTable(texts.map((text) => parseCidr(text) as Cidr));

function facts(sni: string | null, alpn: string[] = [], client = "192.0.2.1"): RouteFacts {
  const [w0, w1, w2, w3] = parseAddress(client)!;
  return { sni, alpn, w0, w1, w2, w3 };
}

describe("a route", () => {
  test("is the first that matches", () => {
    const routes = [
      route(3, { sni: ["a.example.com"] }),
      route(1, { sni: ["*.example.com"] }),
      route(2, { sni: ["a.example.com", "b.example.com"] }),
    ];
    expect(chooseRoute(routes, facts("a.example.com"))).toBe(3);
    expect(chooseRoute(routes, facts("b.example.com"))).toBe(1);
  });

  test("is none, -1, if none matches", () => {
    expect(chooseRoute([], facts("a.example.com"))).toBe(-1);
    expect(chooseRoute([route(0, { sni: ["b.example.com"] })], facts("a.example.com"))).toBe(-1);
  });

  test("is a later one if any condition of an earlier one fails", () => {
    const routes = [
      route(0, { sni: ["b.example.com"] }),
      route(1, { alpn: ["h3"] }),
      route(2, { clients: clients("10.0.0.0/8") }),
      route(3, {}),
    ];
    expect(chooseRoute(routes, facts("a.example.com", ["h2"]))).toBe(3);
  });

  test("without conditions matches everything", () => {
    expect(chooseRoute([route(0, {})], facts(null))).toBe(0);
  });

  test("with names matches no client without one", () => {
    expect(chooseRoute([route(0, { sni: ["*.example.com", "", "*"] })], facts(null))).toBe(-1);
  });

  test("with protocols matches a client that offers one of them, in any position", () => {
    const routes = [route(0, { alpn: ["h3", "h2"] })];
    expect(chooseRoute(routes, facts(null, ["http/1.1", "h2"]))).toBe(0);
    expect(chooseRoute(routes, facts(null, ["http/1.1", "H2"]))).toBe(-1);
    expect(chooseRoute(routes, facts(null, []))).toBe(-1);
  });

  test("with CIDRs matches the clients in them", () => {
    const routes = [route(0, { clients: clients("10.0.0.0/8", "2001:db8::/32") })];
    expect(chooseRoute(routes, facts(null, [], "10.1.2.3"))).toBe(0);
    expect(chooseRoute(routes, facts(null, [], "2001:db8::9"))).toBe(0);
    expect(chooseRoute(routes, facts(null, [], "11.1.2.3"))).toBe(-1);
  });

  test("matches a connection only if all its conditions hold", () => {
    const routes = [route(0, { sni: ["a.example.com"], alpn: ["h2"], clients: clients("10.0.0.0/8") })];
    expect(chooseRoute(routes, facts("a.example.com", ["h2"], "10.0.0.1"))).toBe(0);
    expect(chooseRoute(routes, facts("b.example.com", ["h2"], "10.0.0.1"))).toBe(-1);
    expect(chooseRoute(routes, facts("a.example.com", ["h3"], "10.0.0.1"))).toBe(-1);
    expect(chooseRoute(routes, facts("a.example.com", ["h2"], "11.0.0.1"))).toBe(-1);
  });

  test("is found as nameMatches would find it", () => {
    const names = ["a", "a.b", "c.a.b", "d.c.a.b", "b", "x.b"];
    const patterns = ["a", "a.b", "*.b", "*.a.b", "*.c.a.b", "*", "*.", "", "*.x"];
    for (const name of names) {
      for (const pattern of patterns) {
        const found = chooseRoute([route(0, { sni: [canonicalName(pattern)] })], facts(name)) === 0;
        expect(found, `${pattern} ${name}`).toBe(nameMatches(pattern, name));
      }
    }
  });
});

describe("a pattern", () => {
  test.each([
    ["example.com", "example.com"],
    ["Example.COM", "eXample.com"],
    ["example.com.", "example.com"],
    ["*.example.com", "a.example.com"],
    ["*.Example.com", "A.example.COM"],
    ["*.example.com", "xn--bcher-kva.example.com"],
    ["localhost", "localhost"],
  ])("%j covers %j", (pattern, name) => {
    expect(nameMatches(pattern, name)).toBe(true);
  });

  test.each([
    ["example.com", "a.example.com"],
    ["a.example.com", "example.com"],
    ["*.example.com", "example.com"],
    ["*.example.com", "a.b.example.com"],
    ["*.example.com", ".example.com"],
    ["*.example.com", "a.example.org"],
    ["*.example.com", "aexample.com"],
    ["a*.example.com", "ab.example.com"],
    ["*", "localhost"],
    ["*", "example.com"],
    ["*.*", "example.com"],
    ["*.", "localhost"],
    ["", "localhost"],
    ["", ""],
    [".", ""],
  ])("%j does not cover %j", (pattern, name) => {
    expect(nameMatches(pattern, name)).toBe(false);
  });
});
