// The lists in the documents match the code.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { ENDS } from "../src/core/ends.ts";
import { parseConfig } from "../src/config/load.ts";
import { describe } from "../src/cli/command-line.ts";

const readme = readFileSync(join(import.meta.dirname, "../README.md"), "utf8");

test("the README lists exactly the existing ends, each with its meaning", () => {
  const rows = [...readme.matchAll(/^\| `([a-z_]+)` +\| (.*?) +\|$/gm)].map(([, end, meaning]) => [end, meaning]);
  expect(Object.fromEntries(rows)).toEqual(ENDS);
});

test("docs/ends.md says for each end what to do, and has no other end", () => {
  const page = readFileSync(join(import.meta.dirname, "../docs/ends.md"), "utf8");
  const tables = page.slice(0, page.indexOf("## Messages of the log"));
  const ends = [...tables.matchAll(/^\| `([a-z_]+)`/gm)].map(([, end]) => end);
  expect(new Set(ends)).toEqual(new Set(Object.keys(ENDS)));
});

test("docs/ends.md names the messages as the log writes them", () => {
  const page = readFileSync(join(import.meta.dirname, "../docs/ends.md"), "utf8");
  const rows = page.slice(page.indexOf("## Messages of the log")).matchAll(/^\| (`.*?`) +\|/gm);
  const messages = [...rows].flatMap(([, cell]) => [...cell!.matchAll(/`(.*?)`/g)].map(([, message]) => message!));
  expect(messages.length).toBeGreaterThan(10);
  const sources = ["backend-states", "tier-log", "health", "resolve", "supervisor", "registry", "reload"].map((name) =>
    readFileSync(join(import.meta.dirname, `../src/supervisor/${name}.ts`), "utf8"),
  );
  for (const message of messages) expect(sources.join("\n")).toContain(`"${message}"`);
});

test("the README's smallest config has the stated number of lines, and is valid", () => {
  const smallest = /^```toml\n(.*?)^```$/ms.exec(readme)?.[1] ?? "";
  expect(smallest.trim().split("\n").length).toBe(5);
  expect(readme.match(/\b(four|five|six) lines\b/g)).toEqual(["five lines", "five lines"]);
  expect(parseConfig(smallest, { file: "lb.toml", env: {} }).ok).toBe(true);
});

test("the README links to every page of docs/", () => {
  const pages = readdirSync(join(import.meta.dirname, "../docs")).filter((name) => name.endsWith(".md"));
  expect(pages.length).toBeGreaterThan(5);
  for (const page of pages) expect(readme).toContain(`](docs/${page})`);
});

test("the README names no protocol that does not exist", () => {
  expect(readme).not.toMatch(/\b(UDP|games?|QUIC|DNS servers?)\b/i);
});

test("the README names every command of the help", () => {
  const program = { version: "1.2.3", run: () => Promise.resolve(0) };
  const lb = describe(program, { code: 0 });
  const commands = lb.createHelp().visibleCommands(lb);
  expect(commands.length).toBeGreaterThan(3);
  for (const command of commands) expect(readme).toContain(`lb ${command.name()}`);
});

test("the examples of docs/health-checks.md are valid, without a warning", () => {
  const page = readFileSync(join(import.meta.dirname, "../docs/health-checks.md"), "utf8");
  const blocks = [...page.matchAll(/^```toml\n(.*?)^```$/gms)].map((match) => match[1]!);
  expect(blocks.length).toBeGreaterThan(8);
  for (const block of blocks) {
    const pools = new Set([...block.matchAll(/^\[pools\.(\w+)/gm)].map((match) => match[1]!));
    if (pools.size === 0) pools.add("app");
    const routes = [...pools].map((pool) => `{ pool = "${pool}", sni = ["${pool}.example"] }`);
    const listener = `[listeners.web]\nbind = ":8080"\nroutes = [${routes.join(", ")}]\n`;
    const isWhole = /^backends/m.test(block);
    const missing = isWhole ? "" : `[pools.${[...pools][0]}]\nbackends = ["10.0.0.1:1"]\n`;
    const parsed = parseConfig(listener + missing + block, { file: "lb.toml", env: { REDIS_PASSWORD: "x" } });
    expect(parsed, block).toMatchObject({ ok: true, warnings: [] });
  }
});
