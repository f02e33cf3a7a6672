// Runs test/e2e/soak.test.ts for a given time: `npm run soak -- --seconds 360 --seed 7`. The seed determines the actions of the clients
// and what happens to lb; how they interleave depends on the machine.
import { spawn } from "node:child_process";
import { join } from "node:path";
import { parseArgs } from "node:util";

const { values } = parseArgs({
  options: { seconds: { type: "string", default: "360" }, seed: { type: "string" } },
});
const child = spawn(
  process.execPath,
  ["node_modules/vitest/vitest.mjs", "run", "--silent=false", "test/e2e/soak.test.ts"],
  {
    cwd: join(import.meta.dirname, ".."),
    stdio: "inherit",
    env: {
      ...process.env,
      LB_SOAK_SECONDS: values.seconds,
      ...(values.seed === undefined ? {} : { LB_SOAK_SEED: values.seed }),
    },
  },
);
child.once("close", (code) => process.exit(code ?? 1));
