import { expect, it } from "vitest";
import { closest } from "../../src/config/suggest.ts";

const options = ["bind", "pool", "max_connections", "max_connections_per_client", "rate_limit", "idle", "token_file"];

it.each([
  ["bidn", "bind"],
  ["Bind", "bind"],
  ["maxConnections", "max_connections"],
  ["max-conections", "max_connections"],
  ["ratelimit", "rate_limit"],
  ["idle_timeout", "idle"],
  ["token", "token_file"],
  ["pol", "pool"],
])("suggests for %s %s", (word, meant) => {
  expect(closest(word, options)).toBe(meant);
});

it.each(["", "x", "completely_different", "b", "a".repeat(1000)])("has no suggestion for %j", (word) => {
  expect(closest(word, options)).toBeNull();
});

const ours = [
  "bind",
  "listeners",
  "pools",
  "backends",
  "source_hash",
  "least_connections",
  "failures",
  "master",
  "path",
];

it.each([
  ["servers", "backends"],
  ["iphash", "source_hash"],
  ["ip_hash", "source_hash"],
  ["ring-hash", "source_hash"],
  ["least_request", "least_connections"],
  ["max_fails", "failures"],
  ["listen", "bind"],
  ["frontends", "listeners"],
  ["primary", "master"],
  ["uri", "path"],
])("suggests the option that has the meaning of %s in other load balancers: %s", (word, meant) => {
  expect(closest(word, ours)).toBe(meant);
});

it("suggests a synonym only where it is an option", () => {
  expect(closest("upstream", ["pools", "listeners"])).toBe("pools");
  expect(closest("upstream", ["weight"])).toBeNull();
  expect(closest("constructor", ["weight"])).toBeNull();
});
