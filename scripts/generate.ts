// Writes what is made from the list of options, the routes of the admin endpoint and the description of the command line:
// lb.schema.json, docs/config.md, openapi.json, and the manual page, completion and Grafana dashboard in packaging/.
import { mkdirSync, writeFileSync } from "node:fs";
import manifest from "../package.json" with { type: "json" };
import { openApiText } from "../src/admin/openapi.ts";
import { ROUTES } from "../src/admin/routes.ts";
import { afterHelp, describe } from "../src/cli/command-line.ts";
import { completion } from "../src/cli/completion.ts";
import { manPage } from "../src/cli/man.ts";
import { SHELLS } from "../src/cli/shells.ts";
import { jsonSchemaText } from "../src/config/json-schema.ts";
import { reference } from "../src/config/reference.ts";
import { grafanaText } from "./grafana.ts";

const root = new URL("../", import.meta.url);
writeFileSync(new URL("lb.schema.json", root), jsonSchemaText());
writeFileSync(new URL("docs/config.md", root), reference());
writeFileSync(new URL("openapi.json", root), openApiText(ROUTES));
mkdirSync(new URL("packaging/grafana/", root), { recursive: true });
writeFileSync(new URL("packaging/grafana/lb.json", root), grafanaText());

const lb = describe({ version: manifest.version, run: () => Promise.resolve(0) }, { code: 0 });
writeFileSync(new URL("packaging/lb.1", root), manPage(lb, manifest.version, afterHelp));
mkdirSync(new URL("packaging/completion/", root), { recursive: true });
for (const shell of SHELLS) writeFileSync(new URL(`packaging/completion/lb.${shell}`, root), completion(lb, shell));
