// Wrong input to every real route: what is refused, and which place the answer names.
import { describe, expect, test } from "vitest";
import { findRoute, inputOf, type Refusal } from "../../src/admin/input.ts";
import type { Route } from "../../src/admin/route.ts";
import { ROUTES } from "../../src/admin/routes.ts";

const pathOf = ({ path }: Route): string => path.replace(/\{(\w+)\}/g, (_, name) => (name === "id" ? "1" : "0"));

/** The answer to a request with this input, or null if it is taken. */
function refusalOf(route: Route, { query = "", body = "" }: { query?: string; body?: string }): Refusal | null {
  const found = findRoute(ROUTES, route.method, pathOf(route));
  if (!("route" in found)) throw new Error(found.detail);
  expect(found.route).toBe(route);
  const given = inputOf(found, { query, body: new TextEncoder().encode(body) });
  return "is" in given ? null : given;
}

const at = (refusal: Refusal | null): string[] => {
  expect(refusal?.status).toBe(400);
  return refusal!.errors!.map((error) => error.at);
};

describe.each(ROUTES.map((route) => [`${route.method} ${route.path}`, route] as const))("%s", (_, route) => {
  const others = (["GET", "POST", "PATCH", "DELETE"] as const).filter(
    (method) => !ROUTES.some(({ path, method: known }) => path === route.path && known === method),
  );

  test.each(others)("does not take %s, and says what it takes", (method) => {
    const refusal = findRoute(ROUTES, method, pathOf(route));
    expect(refusal).toMatchObject({ status: 405, headers: { Allow: expect.stringContaining(route.method) } });
  });

  test("refuses a query that it does not know, unless it ignores queries", () => {
    if (route.query === null) expect(refusalOf(route, { query: "nonsense=1" })).toBeNull();
    else expect(at(refusalOf(route, { query: "nonsense=1" }))).toContain("query.nonsense");
  });

  const rows = Object.entries(route.query?.rows ?? {});
  test.each(rows)("refuses a value of the query's %s that means nothing", (key, { row }) => {
    // A text may be any name, and what has no such name is refused by the operation.
    const isFreeText = row.kind.type === "string" && refusalOf(route, { query: `${key}=no+such+thing%21` }) === null;
    if (isFreeText) expect(row.doc).toMatch(/name|backend/i);
    else expect(at(refusalOf(route, { query: `${key}=no+such+thing%21` }))).toContain(`query.${key}`);
  });

  test.each([["{"], ["[]"], ['"text"'], ["null"], ["\u00ff{"]])("refuses the body %s", (body) => {
    expect(at(refusalOf(route, { body }))).toEqual(["body"]);
  });

  test("refuses a body with a key that it does not know", () => {
    expect(at(refusalOf(route, { body: '{"nonsense":1}' }))).toContain("body.nonsense");
  });

  test.each(Object.keys(route.body.rows))("refuses a wrong type of the body's %s", (key) => {
    expect(at(refusalOf(route, { body: JSON.stringify({ [key]: { wrong: [] } }) })).join()).toContain(`body.${key}`);
  });
});
