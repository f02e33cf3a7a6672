// Builds dist/lb: everything in one executable. Two builds of the same sources give the same bytes.
import { mkdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import manifest from "../package.json" with { type: "json" };
import { bundleDashboard } from "./dashboard.ts";

const root = join(import.meta.dir, "..");
const out = join(root, "dist");
// Built beside its place and then renamed, so that a build that fails, or runs twice at once, never leaves half a file.
// The executable's own name goes into its bytes, so that name is always `lb`.
const building = join(out, `.building-${process.pid}`);

// Bun puts the paths of sources relative to the working folder into the source map.
process.chdir(root);
mkdirSync(building, { recursive: true });
try {
  await Bun.build({
    entrypoints: ["src/main.ts", "src/worker.ts"],
    compile: {
      outfile: join(building, "lb"),
      // What lies in the folder where someone starts the balancer is none of its business: a `preload` in a bunfig.toml
      // would run as code.
      autoloadDotenv: false,
      autoloadBunfig: false,
      execArgv: ["--disallow-code-generation-from-strings=strict"],
    },
    target: "bun",
    format: "esm",
    bytecode: true,
    // Names stay, so that a stack trace in a bug report can be read; they cost 0.1 % of the size.
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
