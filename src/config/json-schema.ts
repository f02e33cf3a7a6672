// The JSON Schema of the config, for editors: `#:schema ./lb.schema.json` in the first line of a config.
import { toJsonSchema } from "@valibot/to-json-schema";
import type { JsonSchema } from "@valibot/to-json-schema";
import type * as v from "valibot";
import { leftOut } from "./rows.ts";
import type { RowInfo } from "./rows.ts";
import { file } from "./schema.ts";

/** The schema as a JSON value, with the docs and the defaults of every option. */
export function jsonSchema(): JsonSchema {
  return { $schema: "http://json-schema.org/draft-07/schema#", title: "lb", ...converted(file) };
}

function converted(schema: v.GenericSchema): JsonSchema {
  const { $schema: _, ...made } = toJsonSchema(schema, {
    typeMode: "input",
    errorMode: "ignore",
    overrideSchema: ({ valibotSchema, jsonSchema }) => overridden(valibotSchema, jsonSchema, converted),
  });
  return made;
}

/** The text of lb.schema.json. */
export function jsonSchemaText(): string {
  return `${JSON.stringify(jsonSchema(), null, 2)}\n`;
}

interface Described {
  type: string;
  wrapped: v.GenericSchema;
  row: RowInfo;
  entries: object;
  default: unknown;
}

/**
 * The JSON Schema `made` from a schema of rows, plus what the conversion leaves out: docs, that other keys are refused, and required
 * options, which it does not know: `convert` converts what they wrap.
 */
export function overridden(
  valibotSchema: object,
  made: JsonSchema,
  convert: (schema: v.GenericSchema) => JsonSchema,
): JsonSchema {
  const { type, wrapped, row, entries, default: value } = valibotSchema as Partial<Described>;
  const schema = type === "non_optional" && wrapped !== undefined ? convert(wrapped) : { ...made };
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
