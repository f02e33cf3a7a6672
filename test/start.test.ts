// What the process loads when it starts with a config file. Modules of the runtime are loaded as soon as a module that is loaded
// imports them, whether it is used or not; HTTP alone takes 2 MB.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

const src = join(import.meta.dirname, "../src");

/** Everything that these files import by a statement, directly or not; types are erased. */
function importedBy(entries: readonly string[]): Set<string> {
  const transpiler = new Bun.Transpiler({ loader: "ts" });
  const found = new Set(entries.map((entry) => join(src, entry)));
  for (const file of found) {
    if (!file.startsWith(src) || !file.endsWith(".ts")) continue;
    for (const { kind, path } of transpiler.scanImports(readFileSync(file, "utf8"))) {
      if (kind === "import-statement") found.add(path.startsWith(".") ? join(file, "..", path) : path);
    }
  }
  return found;
}

test("a start without the admin endpoint loads neither HTTP nor the command line", () => {
  const loaded = importedBy(["main.ts", "worker.ts", "supervisor/supervisor.ts"]);
  expect(loaded).toContain(join(src, "worker/plane.ts"));
  expect(loaded).toContain(join(src, "supervisor/reload.ts"));
  for (const unwanted of [
    "node:http",
    "node:https",
    "node:readline/promises",
    "commander",
    join(src, "admin/admin.ts"),
  ])
    expect(loaded).not.toContain(unwanted);
});
