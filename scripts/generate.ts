// Writes the files that are generated from the list of options and from the routes of the admin endpoint: lb.schema.json, docs/config.md, openapi.json.
import { writeFileSync } from "node:fs";
import { openApiText } from "../src/admin/openapi.ts";
import { ROUTES } from "../src/admin/routes.ts";
import { jsonSchemaText } from "../src/config/json-schema.ts";
import { reference } from "../src/config/reference.ts";

const root = new URL("../", import.meta.url);
writeFileSync(new URL("lb.schema.json", root), jsonSchemaText());
writeFileSync(new URL("docs/config.md", root), reference());
writeFileSync(new URL("openapi.json", root), openApiText(ROUTES));
