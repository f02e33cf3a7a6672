// Generates the OpenAPI 3.1 document of the admin endpoint from its routes. https://spec.openapis.org/oas/v3.1.1.html
import { toJsonSchema, type JsonSchema } from "@valibot/to-json-schema";
import * as v from "valibot";
import { overridden } from "../config/json-schema.ts";
import type { Rows } from "../config/rows.ts";
import { said } from "../observe/said.ts";
import { STATUSES } from "./answers.ts";
import type { Fields, Reply, Route } from "./route.ts";

type Json = Record<string, unknown>;

/** The document for these routes. */
export function openApi(routes: readonly Route[]): Json {
  const schemas: Json = { Problem: schemaOf(problemSchema) };
  const paths: Record<string, Json> = {};
  for (const route of routes) {
    const { schema, schemaName } = route.reply;
    if (schema !== null && schemaName !== null) schemas[schemaName] ??= schemaOf(schema);
    const item = (paths[route.path] ??= {});
    item[route.method.toLowerCase()] = operation(route);
  }
  return {
    openapi: "3.1.1",
    info: {
      title: "lb admin API",
      version: "1",
      summary: "Status, metrics and changes of a running lb",
      license: { name: "MIT", identifier: "MIT" },
    },
    servers: [{ url: "http://127.0.0.1:9900", description: "The default of admin.bind" }],
    paths,
    components: {
      schemas,
      securitySchemes: {
        token: { type: "http", scheme: "bearer", description: "The token of admin.token_file." },
        header: {
          type: "apiKey",
          in: "header",
          name: "X-Lb-Admin",
          description: "Without a token, changes need this header with the value 1.",
        },
      },
    },
  };
}

/** The text of openapi.json. */
export function openApiText(routes: readonly Route[]): string {
  return `${JSON.stringify(openApi(routes), null, 2)}\n`;
}

const problemSchema = v.object({
  type: v.literal("about:blank"),
  title: v.string(),
  status: v.number(),
  detail: said(v.string(), "What is wrong with this request."),
  error: v.optional(said(v.string(), "A name for programs.")),
  cure: v.optional(said(v.string(), "How to put it right.")),
  errors: v.optional(v.array(v.object({ at: v.string(), message: v.string(), hint: v.optional(v.string()) }))),
});

function operation({ name, summary, access, parameters, query, body, reply, errors }: Route): Json {
  const all = [...parametersOf("path", parameters.rows), ...parametersOf("query", query?.rows ?? {})];
  return {
    operationId: name,
    summary,
    // An empty requirement: if the config has no token, none is needed.
    security: access === "open" ? [] : [{ token: [] }, access === "read" ? {} : { header: [] }],
    ...(all.length > 0 && { parameters: all }),
    ...(Object.keys(body.rows).length > 0 && { requestBody: requestBody(body) }),
    responses: {
      200: { description: reply.description, content: contentOf(reply) },
      ...Object.fromEntries(
        Object.entries(reply.statuses).map(([status, description]) => [
          status,
          { description, content: contentOf(reply) },
        ]),
      ),
      ...problems({ access, errors }),
      default: problemResponse("Another error."),
    },
  };
}

function contentOf({ contentType, schema, schemaName }: Reply): Json {
  const type = contentType.replace(/; charset=utf-8$/, "");
  const ref = { $ref: `#/components/schemas/${schemaName ?? ""}` };
  return { [type]: { schema: schema === null ? { type: "string" } : ref } };
}

/** One response for each status, with the names of its errors. */
function problems({ access, errors }: Pick<Route, "access" | "errors">): Json {
  const byStatus = new Map<number, string[]>();
  for (const name of errors) byStatus.set(STATUSES[name], [...(byStatus.get(STATUSES[name]) ?? []), name]);
  const made = [...byStatus].map(([status, names]) => [status, problemResponse(`\`error\` is ${names.join(" or ")}.`)]);
  const denied = [
    [401, problemResponse("A token is needed.")],
    [403, problemResponse("This caller may not do this.")],
  ];
  return Object.fromEntries([...(access === "open" ? [] : denied), ...made]) as Json;
}

function problemResponse(description: string): Json {
  return {
    description,
    content: { "application/problem+json": { schema: { $ref: "#/components/schemas/Problem" } } },
  };
}

function parametersOf(where: "path" | "query", rows: Rows): Json[] {
  return Object.entries(rows).map(([name, row]) => {
    const { kind, doc: description, default: value } = row.row;
    const schema = { ...inputSchemaOf(kind), ...(value !== undefined && { default: value }) };
    const isRequired = where === "path" || row.row.required;
    return { name, in: where, description, ...(isRequired && { required: true }), schema };
  });
}

function requestBody({ rows, schema }: Fields): Json {
  const required = Object.values(rows).some(({ row }) => row.required);
  return { required, content: { "application/json": { schema: inputSchemaOf(schema) } } };
}

function schemaOf(schema: v.GenericSchema): Json {
  const { $schema: _, ...made } = toJsonSchema(schema, { target: "draft-2020-12", errorMode: "ignore" });
  return made as Json;
}

/** For input: rows have docs, and unknown keys are refused. */
function inputSchemaOf(schema: v.GenericSchema): JsonSchema {
  const { $schema: _, ...made } = toJsonSchema(schema, {
    target: "draft-2020-12",
    typeMode: "input",
    errorMode: "ignore",
    overrideSchema: ({ valibotSchema, jsonSchema }) => overridden(valibotSchema, jsonSchema, inputSchemaOf),
  });
  return made;
}
