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
