// `lb schema`: the JSON Schema of the config, for editors.
import { jsonSchemaText } from "../config/json-schema.ts";

/** Prints the schema on stdout. Returns the exit code, 0. */
export function schema(): number {
  process.stdout.write(jsonSchemaText());
  return 0;
}
