// The logs as systemd's journal receives them. A shell plays the service manager: it puts the device and inode of a stream into
// JOURNAL_STREAM and execs lb.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { echo } from "../support/backends.ts";
import { connect } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { binary, freePort, startLb } from "../support/lb.ts";

/** Names the stream behind `fd` and becomes what follows. */
const journalIs = (fd: number, also = ""): string[] => [
  "sh",
  "-c",
  `JOURNAL_STREAM=$(stat -Lc %d:%i /proc/$$/fd/${fd}) exec "$@" ${also}`,
  "sh",
];

function config(port: number, backend: string, log: string): string {
  return `
    workers = 1
    [log]
    ${log}
    [listeners.web]
    bind = "127.0.0.1:${port}"
    pool = "app"
    [pools.app]
    backends = ["${backend}"]
    health.type = "off"
  `;
}

async function exchange(port: number): Promise<void> {
  using client = await connect(port);
  expect(await client.echoes()).toBe(true);
  client.finish();
  await client.ended;
}

test("lines for the journal begin with a priority and have no time of the log's own, those of the access log on stdout too", async () => {
  using backend = await echo();
  const port = await freePort();
  // As in a service: stdout and stderr are one stream.
  await using lb = await startLb(config(port, backend.address, `level = "debug"`), { wrapper: journalIs(2, ">&2") });
  await exchange(port);
  await exchange(port);
  await lb.reload("x =");
  await eventually("two access lines", () => lb.stderr.filter((line) => line.includes("end=eof")).length === 2);
  const lineWith = (text: string) => lb.stderr.find((line) => line.includes(text));
  expect(lineWith("listening")).toMatch(/^<6>info {2}listening listener=web/);
  expect(lineWith("reload failed")).toMatch(/^<3>error /);
  expect(lineWith("end=eof")).toMatch(/^<6>time=\d{4}-\d\d-\d\dT\S+Z id=\d+ listener=web /);
  expect(lb.stderr.filter((line) => !/^<[3467]>/.test(line))).toEqual([]);
});

test("only the stream that JOURNAL_STREAM names is the journal's", async () => {
  using backend = await echo();
  const port = await freePort();
  await using lb = await startLb(config(port, backend.address, `format = "json"`), { wrapper: journalIs(1) });
  await exchange(port);
  await eventually("the access line", () => lb.stdout.some((line) => line.includes('"end":"eof"')));
  expect(lb.stdout.find((line) => line.includes('"end":"eof"'))).toMatch(/^<6>\{"time":"\d{4}-/);
  expect(lb.log().map(({ time }) => typeof time)).not.toContain("undefined");
});

test("every line of a config's problems is an error for the journal", async () => {
  const folder = mkdtempSync(join(tmpdir(), "lb-journal-"));
  const file = join(folder, "lb.toml");
  writeFileSync(file, "[listeners.web]\nbind = 1\nx =\n");
  const child = Bun.spawnSync([...journalIs(2), binary, file], { stdio: ["ignore", "pipe", "pipe"] });
  rmSync(folder, { recursive: true });
  expect(child.exitCode).toBe(2);
  const lines = child.stderr.toString().trimEnd().split("\n");
  expect(lines.length).toBeGreaterThan(1);
  expect(lines.filter((line) => !line.startsWith("<3>"))).toEqual([]);
});
