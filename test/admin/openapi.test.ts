import { Validator } from "@seriousme/openapi-schema-validator";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { safeParse, type GenericSchema } from "valibot";
import { expect, test } from "vitest";
import { openApi, openApiText } from "../../src/admin/openapi.ts";
import { ROUTES } from "../../src/admin/routes.ts";
import { filledSnapshot } from "../support/snapshot.ts";

test("the OpenAPI document is valid by the specification's own schema", async () => {
  const validator = new Validator();
  const result = await validator.validate(structuredClone(openApi(ROUTES)));
  expect(result.errors ?? []).toEqual([]);
  expect([result.valid, validator.version]).toEqual([true, "3.1"]);
});

test("a document with a response that has no description is not valid", async () => {
  const document = structuredClone(openApi(ROUTES)) as { paths: Record<string, never> };
  const broken = JSON.parse(JSON.stringify(document).replaceAll('"description"', '"describes"')) as Record<
    string,
    unknown
  >;
  expect((await new Validator().validate(broken)).valid).toBe(false);
});

test("openapi.json is what `npm run generate` writes", () => {
  expect(readFileSync(join(import.meta.dirname, "../../openapi.json"), "utf8")).toBe(openApiText(ROUTES));
});

test("every route has its parameters, and a name of its own", () => {
  expect(new Set(ROUTES.map(({ name }) => name)).size).toBe(ROUTES.length);
  for (const { name, path, parameters } of ROUTES) {
    const braced = [...path.matchAll(/\{(\w+)\}/g)].map(([, parameter]) => parameter);
    expect([name, Object.keys(parameters.rows)]).toEqual([name, braced]);
  }
});

test("every reference in the document leads somewhere, and every error of an operation has a status", () => {
  const document = openApi(ROUTES) as { components: { schemas: Record<string, unknown> } };
  const text = JSON.stringify(document);
  for (const [, name] of text.matchAll(/"#\/components\/schemas\/(\w+)"/g))
    expect(Object.keys(document.components.schemas)).toContain(name);
  expect(text).not.toContain('"undefined"');
});

test("the schema of the status has every key of a snapshot", () => {
  const status = ROUTES.find(({ name }) => name === "getStatus")!;
  expect(keysLeftOut(status.reply.schema!, filledSnapshot())).toEqual([]);
});

/** Keys of a value that a schema does not have. Valibot omits them from its output. */
function keysLeftOut(schema: GenericSchema, value: unknown): string[] {
  const result = safeParse(schema, value);
  expect(result.issues ?? []).toEqual([]);
  return keysOf(value).filter((key) => !keysOf(result.output).includes(key));
}

function keysOf(value: unknown, at = ""): string[] {
  if (typeof value !== "object" || value === null) return [at];
  return Object.entries(value).flatMap(([key, below]) => keysOf(below, `${at}.${key}`));
}
