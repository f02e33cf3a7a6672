import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";
import { Totals } from "./test/support/reporter.ts";

/** `import page from "./page.html" with { type: "text" }` works in Vite as in Bun. */
const textImports = {
  name: "text-imports",
  enforce: "pre" as const,
  load: (id: string) =>
    /\.(html|css|svg|txt|sql)$/.test(id) ? `export default ${JSON.stringify(readFileSync(id, "utf8"))}` : null,
};

const ALONE = [
  "bandwidth",
  "connections-many",
  "databases",
  "descriptors",
  "health-checks",
  "limits",
  "memory",
  "queue",
  "relay",
  "reload",
  "shared-bandwidth",
  "short-connections",
  "shutdown",
  "soak",
  "workers",
].map((name) => `test/e2e/${name}.test.ts`);

// Servers that tests start as another user read files that the tests have written.
process.umask(0o022);

export default defineConfig({
  plugins: [textImports],
  test: {
    reporters: ["default", new Totals()],
    // The default pool, "forks", does not start under Bun.
    pool: "threads",
    // Messages of other programs in English, and no warning of theirs about a locale that is not installed.
    env: { LC_ALL: "C.UTF-8" },
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // The default of one second is too short for a busy machine.
    expect: { poll: { timeout: 30_000 } },
    projects: [
      {
        extends: true,
        test: {
          name: "unit",
          include: ["test/**/*.test.ts"],
          exclude: ["test/e2e/**"],
          maxWorkers: availableParallelism(),
          sequence: { groupOrder: 1 },
        },
      },
      {
        extends: true,
        // These run the compiled binary and mostly wait for timeouts and peers.
        test: {
          name: "e2e",
          include: ["test/e2e/**/*.test.ts"],
          exclude: ALONE,
          maxWorkers: availableParallelism(),
          sequence: { groupOrder: 2 },
        },
      },
      {
        extends: true,
        // These make load or measure it: they run after all others, one file at a time.
        test: {
          name: "load",
          include: ALONE,
          maxWorkers: 1,
          sequence: { groupOrder: 3 },
        },
      },
    ],
  },
});
