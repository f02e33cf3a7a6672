// Builds dist/lb: everything in one executable. Two builds of the same sources give the same bytes.
import { mkdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import manifest from "../package.json" with { type: "json" };
import { bundleDashboard } from "./dashboard.ts";

const root = join(import.meta.dir, "..");
const out = join(root, "dist");
// Built in a folder of its own and then renamed, so that a failed build, or two builds at once, never leave an incomplete file.
// The executable's name is part of its bytes, so it is always `lb`.
const building = join(out, `.building-${process.pid}`);

// Bun writes source paths relative to the working folder into the source map.
process.chdir(root);
mkdirSync(building, { recursive: true });
try {
  await Bun.build({
    entrypoints: ["src/main.ts", "src/worker.ts"],
    compile: {
      outfile: join(building, "lb"),
      // Files in the folder where lb is started must not affect it: a `preload` in a bunfig.toml would run as code.
      autoloadDotenv: false,
      autoloadBunfig: false,
      execArgv: ["--disallow-code-generation-from-strings=strict"],
    },
    target: "bun",
    format: "esm",
    bytecode: true,
    // Otherwise the runtime's modules that one command needs are loaded at each start.
    splitting: true,
    // Identifiers are kept, so that stack traces in bug reports are readable; this costs 0.1 % of the size.
    minify: { whitespace: true, syntax: true, identifiers: false },
    sourcemap: "inline",
    define: {
      LB_VERSION: JSON.stringify(manifest.version),
      LB_DASHBOARD: JSON.stringify(await bundleDashboard()),
    },
  });
  renameSync(join(building, "lb"), join(out, "lb"));
} finally {
  rmSync(building, { recursive: true, force: true });
}
