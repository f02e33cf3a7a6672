// The JSON Schema of the config, for editors: `#:schema ./lb.schema.json` in the first line of a config.
import { toJsonSchema } from "@valibot/to-json-schema";
import type { JsonSchema } from "@valibot/to-json-schema";
import { leftOut } from "./rows.ts";
import type { RowInfo } from "./rows.ts";
import { file } from "./schema.ts";

/** The schema as a JSON value, with the docs and the defaults of every option. */
export function jsonSchema(): JsonSchema {
  const schema = toJsonSchema(file, {
    typeMode: "input",
    errorMode: "ignore",
    overrideSchema: ({ valibotSchema, jsonSchema: made }) => overridden(valibotSchema, made),
  });
  return { $schema: "http://json-schema.org/draft-07/schema#", title: "lb", ...schema };
}

/** The text of lb.schema.json. */
export function jsonSchemaText(): string {
  return `${JSON.stringify(jsonSchema(), null, 2)}\n`;
}

interface Described {
  row: RowInfo;
  entries: object;
  default: unknown;
}

/** The JSON Schema `made` from a schema of rows, plus what the conversion leaves out: docs, and that other keys are refused. */
export function overridden(valibotSchema: object, made: JsonSchema): JsonSchema {
  const { row, entries, default: value } = valibotSchema as Partial<Described>;
  const schema = { ...made };
  if (entries !== undefined) {
    schema.additionalProperties = false;
    if (schema.required?.length === 0) delete schema.required;
  }
  if (row !== undefined) schema.description = row.later ? `${row.doc} Not supported yet.` : row.doc;
  // The default of a section follows from the defaults of its options.
  if (value === leftOut || (typeof value === "object" && !Array.isArray(value))) delete schema.default;
  // A string with a variable need not match the pattern of a quantity.
  if (row !== undefined && schema.pattern !== undefined) schema.pattern = `${schema.pattern}|\\$\\{`;
  return schema;
}
