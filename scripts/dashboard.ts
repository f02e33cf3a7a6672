// Bundles the dashboard: its script and its style sheet, each one text, for the executable.
import { readFileSync } from "node:fs";
import { join } from "node:path";

const source = join(import.meta.dir, "../src/dashboard");

export async function bundleDashboard(): Promise<{ page: string; script: string; style: string }> {
  const built = await Bun.build({
    entrypoints: [join(source, "main.tsx")],
    target: "browser",
    format: "esm",
    minify: true,
  });
  const textOf = async (kind: string): Promise<string> => {
    const found = built.outputs.find(({ path }) => path.endsWith(kind));
    if (found === undefined) throw new Error(`the dashboard's bundle has no ${kind} file`);
    return found.text();
  };
  const page = readFileSync(join(source, "index.html"), "utf8");
  return { page, script: await textOf(".js"), style: await textOf(".css") };
}
