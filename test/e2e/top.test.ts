// `lb top` in a real terminal, driven by its keys.
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { echo, type Backend } from "../support/backends.ts";
import { connect } from "../support/client.ts";
import { binary, freePort, startLb, type Lb } from "../support/lb.ts";
import { noTmux, Tmux } from "../support/tmux.ts";

beforeEach((context) => {
  if (noTmux !== null) context.skip(noTmux);
});

let port: number;
let backends: Backend[];
beforeAll(async () => {
  backends = [await echo(), await echo()];
});
afterAll(() => backends.forEach((backend) => backend.stop()));

async function running(): Promise<Lb> {
  port = await freePort();
  const [one, two] = backends.map(({ address }) => address);
  return startLb(`[listeners.web]
bind = "127.0.0.1:${port}"
pool = "app"
[pools.app]
backends = [{ address = "${one}", name = "one" }, { address = "${two}", name = "two", weight = 7 }]
`);
}

function start(terminal: Tmux, lb: Lb): void {
  terminal.type(`${binary} top --config ${lb.file}`);
  terminal.press("Enter");
}

test("shows the backends first, sorts, filters, changes the view, and leaves a clean terminal", async () => {
  await using lb = await running();
  using terminal = new Tmux(80, 24);
  start(terminal, lb);
  const first = await terminal.shows(/app +two +up/);
  expect(first).toMatch(/2 of 2 backends up/);
  expect(first).toMatch(/ready {2}config generation 1/);
  expect(terminal.isAlternate).toBe(true);
  expect(first.split("\n").filter(Boolean).at(-1)).toMatch(/d drain\/ready .* q quit/);

  using client = await connect(port);
  client.send("x");
  terminal.press("1");
  await terminal.shows(/web +127\.0\.0\.1:\d+ +app +ready +1 /);

  terminal.press("3");
  terminal.type("/two");
  await terminal.shows(/filter: two_/);
  terminal.press("Enter");
  expect(await terminal.shows(/^filter: two {2}/m)).not.toMatch(/app +one/);
  terminal.press("Escape");
  await terminal.shows(/app +one/);
  terminal.type("sr");
  expect(await terminal.shows(/POOL-/)).toMatch(/app/);

  terminal.press("q");
  await terminal.shows(/shell>\s*$/);
  expect([terminal.isAlternate, terminal.isCursorShown]).toEqual([false, true]);
  terminal.type("echo te''st; stty -a");
  terminal.press("Enter");
  expect(await terminal.shows(/^test$/m)).toMatch(/^test$/m);
  await terminal.shows(/ icanon .* echo /s);
});

test("follows the size of the terminal, without colours if requested", async () => {
  await using lb = await running();
  using terminal = new Tmux(80, 24, { NO_COLOR: "1" });
  start(terminal, lb);
  await terminal.shows(/app +two +up/);
  // oxlint-disable-next-line no-control-regex -- colours begin with ESC
  expect(terminal.screen(true)).not.toMatch(/\x1b\[3[0-7]m/);
  terminal.resize(150, 40);
  await terminal.shows(/WEIGHT .*CONN\/S .*IN +OUT/);
  terminal.resize(40, 8);
  const small = await terminal.shows(/^POOL +BACKEND +STATE +OPEN/m);
  for (const line of small.split("\n")) expect(line.length).toBeLessThanOrEqual(40);
  terminal.press("C-c");
  await terminal.shows(/shell>\s*$/);
});

test("drains a backend and kills a connection by keys, each after a confirmation", async () => {
  await using lb = await running();
  using terminal = new Tmux(100, 24);
  start(terminal, lb);
  await terminal.shows(/app +two +up/);
  terminal.type("jd");
  await terminal.shows(/drain: send no new connections to app\/two\?/);
  terminal.type("n");
  await terminal.shows(/nothing was changed/);
  terminal.type("d");
  await terminal.shows(/drain: send no new connections to app\/two\?/);
  terminal.type("y");
  await terminal.shows(/app +two +drain/);
  expect((await lb.status()).pools[0]!.backends.map(({ state }) => state)).toEqual(["ready", "drain"]);

  using client = await connect(port);
  expect(await client.echoes()).toBe(true);
  terminal.type("5");
  await terminal.shows(new RegExp(`${client.address} .* app/one `));
  terminal.type("x");
  await terminal.shows(new RegExp(`end connection \\d+ of ${client.address} with a reset\\?`));
  terminal.type("y");
  expect(await client.ended).toBe("reset");
  await terminal.shows(/1 connections were ended|no connections/);
  expect(await lb.lineOf(client)).toMatchObject({ end: "killed" });
  terminal.press("C-c");
  await terminal.shows(/shell>\s*$/);
});

test.each(["SIGTERM", "SIGHUP", "SIGTSTP"] as const)("leaves a clean terminal at %s", async (signal) => {
  await using lb = await running();
  using terminal = new Tmux(80, 24);
  start(terminal, lb);
  await terminal.shows(/app +two +up/);
  process.kill(terminal.foreground, signal);
  await terminal.shows(/shell>\s*$/);
  expect([terminal.isAlternate, terminal.isCursorShown]).toEqual([false, true]);
  terminal.type("stty -a");
  terminal.press("Enter");
  await terminal.shows(/ icanon .* echo /s);
  if (signal !== "SIGTSTP") return;
  terminal.type("fg");
  terminal.press("Enter");
  await terminal.shows(/app +two +up/);
  terminal.press("q");
  await terminal.shows(/shell>\s*$/);
});

test.each([
  ["k", "the key failed"],
  ["p", "the promise failed"],
])("restores the terminal after a fault, and leaves its message there (%s)", async (key, message) => {
  using terminal = new Tmux(80, 24);
  terminal.type(`${process.execPath} ${join(import.meta.dirname, "../support/failing-terminal.ts")}`);
  terminal.press("Enter");
  await terminal.shows(/waiting for a key/);
  expect(terminal.isAlternate).toBe(true);
  terminal.type(key);
  expect(await terminal.shows(/shell>\s*$/)).toContain(message);
  expect([terminal.isAlternate, terminal.isCursorShown]).toEqual([false, true]);
});

test("shows that the server was killed, and continues when it is back", async () => {
  await using lb = await running();
  using terminal = new Tmux(100, 24);
  start(terminal, lb);
  await terminal.shows(/app +two +up/);
  process.kill(lb.pid, "SIGKILL");
  const told = await terminal.shows(/no answer for \d+\w+: .*ECONNREFUSED/);
  expect(told).toMatch(/app +two +up/);
  terminal.press("q");
  await terminal.shows(/shell>\s*$/);
});
