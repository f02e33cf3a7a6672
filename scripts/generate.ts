// Writes what is made from the list of options: lb.schema.json and docs/config.md.
import { writeFileSync } from "node:fs";
import { jsonSchemaText } from "../src/config/json-schema.ts";
import { reference } from "../src/config/reference.ts";

const root = new URL("../", import.meta.url);
writeFileSync(new URL("lb.schema.json", root), jsonSchemaText());
writeFileSync(new URL("docs/config.md", root), reference());
