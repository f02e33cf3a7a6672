import { spawn } from "node:child_process";
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { isOpenForWriting } from "../../src/platform/lease.ts";

test("a file is open for writing while any process has it open, this one or another", async () => {
  const folder = mkdtempSync(join(tmpdir(), "lb-lease-"));
  try {
    const file = join(folder, "lb.toml");
    expect(isOpenForWriting(file)).toBeNull();
    writeFileSync(file, "text");
    expect(isOpenForWriting(file)).toBe(false);
    const reader = openSync(file, "r");
    expect(isOpenForWriting(file)).toBe(false);
    const writer = openSync(file, "r+");
    expect(isOpenForWriting(file)).toBe(true);
    closeSync(writer);
    expect(isOpenForWriting(file)).toBe(false);
    closeSync(reader);
    const other = spawn("sh", ["-c", 'exec 3>>"$0"; echo open; read -r _', file], {
      stdio: ["pipe", "pipe", "ignore"],
    });
    await new Promise((resolve) => other.stdout.once("data", resolve));
    expect(isOpenForWriting(file)).toBe(true);
    const ended = new Promise((resolve) => other.once("close", resolve));
    other.stdin.end();
    await ended;
    expect(isOpenForWriting(file)).toBe(false);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
