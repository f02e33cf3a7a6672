// Checks what must exist before a run: the tools, the proxies, a built lb.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { lbPath, type Brand } from "./contenders.ts";
import { versionOf } from "./machine.ts";

const root = join(import.meta.dir, "..");

/** The versions of the brands that can run here; writes to stderr why another cannot. */
export function findBrands(): Map<Brand, string> {
  buildIfMissing();
  const found: [Brand, string | undefined][] = [
    ["lb", existsSync(lbPath) ? (versionOf([lbPath, "--version"], /(\d[\w.+-]*)/) ?? "unknown version") : undefined],
    ["haproxy", versionOf(["haproxy", "-v"], /version (\S+)/)],
    ["nginx", versionOf(["nginx", "-v"], /nginx\/(\S+)/)],
    ["relay", ""],
    ["direct", ""],
  ];
  for (const [brand, version] of found) {
    if (version === undefined) console.error(`bench: ${brand} is left out: it is not here`);
  }
  return new Map(found.flatMap(([brand, version]) => (version === undefined ? [] : [[brand, version] as const])));
}

/** The tools that every run needs and that are missing here. */
export function missingTools(): string[] {
  return ["nginx", "wrk", "taskset", "strace", "openssl"].filter((tool) => Bun.which(tool) === null);
}

function buildIfMissing(): void {
  if (existsSync(lbPath)) return;
  console.error("bench: dist/lb is missing; building it");
  const build = Bun.spawnSync(["npm", "run", "build"], { cwd: root, stdout: "pipe", stderr: "pipe" });
  if (build.exitCode !== 0) console.error(`bench: the build failed: ${build.stderr.toString().trim()}`);
}
