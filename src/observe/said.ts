import * as v from "valibot";

/** A schema with a sentence for the OpenAPI document. */
export function said<Schema extends v.GenericSchema>(schema: Schema, description: string) {
  return v.pipe(schema, v.description(description));
}
