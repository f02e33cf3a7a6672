import { describe, expect, test } from "vitest";
import { choice, duration, flag, nameText, text, whole } from "../../src/config/kinds.ts";
import { absent, list, orNull, required, row, section } from "../../src/config/rows.ts";
import { findRoute, inputOf, type Content, type Match } from "../../src/admin/input.ts";
import { json, route } from "../../src/admin/route.ts";
import { object, string } from "valibot";

const reply = json("Done", object({ ok: string() }), "Done.");
const handle = () => ({ ok: true, value: { ok: "yes" } }) as const;

const ROUTES = [
  route({
    name: "set",
    method: "PATCH",
    path: "/api/pools/{pool}/backends/{backend}",
    access: "change",
    summary: "Change a backend",
    parameters: { pool: required(nameText(), "Pool."), backend: required(text("name"), "Backend.") },
    body: {
      state: absent(choice(["ready", "drain", "maintenance"]), null, "State."),
      weight: absent(orNull(whole(0, 256)), undefined, "Weight; null = the file's."),
      timeout: absent(duration(), null, "Time."),
      limits: absent(section("{ a = 1 }", { connections: required(whole(1, 9), "Limit.") }), null, "Limits."),
    },
    reply,
    handle,
  }),
  route({
    name: "get",
    method: "GET",
    path: "/api/connections",
    access: "read",
    summary: "Connections",
    query: {
      limit: row(whole(1, 1000), 100, "How many."),
      closed: row(flag(), false, "Closed ones too."),
      listener: row(list(text("name")), [], "Of these listeners."),
    },
    reply,
    handle,
  }),
];

const NO_CONTENT: Content = { query: "", body: new Uint8Array() };

function match(method: string, path: string): Match {
  const found = findRoute(ROUTES, method, path);
  if (!("route" in found)) throw new Error(found.detail);
  return found;
}

function patch(body: string) {
  return inputOf(match("PATCH", "/api/pools/web/backends/a"), { query: "", body: new TextEncoder().encode(body) });
}

function query(text: string) {
  return inputOf(match("GET", "/api/connections"), { ...NO_CONTENT, query: text });
}

describe("a path", () => {
  test("has parameters, which are percent-decoded", () => {
    const { values } = match("PATCH", "/api/pools/web/backends/unix%3A%2Frun%2Fa%20b@1.2.3.4%3A80");
    expect(values).toEqual({ pool: "web", backend: "unix:/run/a b@1.2.3.4:80" });
  });

  test("with a malformed escape is taken literally", () => {
    expect(match("PATCH", "/api/pools/web/backends/%zz").values["backend"]).toBe("%zz");
  });

  test("with an empty parameter, or with too many segments, is not found", () => {
    for (const path of [
      "/api/pools//backends/a",
      "/api/pools/web/backends/",
      "/api/pools/web/backends/a/b",
      "/api/pools/web",
    ])
      expect(findRoute(ROUTES, "PATCH", path)).toMatchObject({ status: 404 });
  });

  test("that is misspelled is refused with a suggestion", () => {
    expect(findRoute(ROUTES, "GET", "/api/conections")).toMatchObject({
      status: 404,
      cure: "did you mean /api/connections? GET /api/openapi.json describes every path",
    });
  });

  test("with another method is refused with the allowed methods", () => {
    expect(findRoute(ROUTES, "POST", "/api/connections")).toMatchObject({
      status: 405,
      headers: { Allow: "GET, HEAD" },
    });
    expect(findRoute(ROUTES, "GET", "/api/pools/web/backends/a")).toMatchObject({ headers: { Allow: "PATCH" } });
    expect(match("HEAD", "/api/connections").route.name).toBe("get");
  });

  test("with an invalid name as a parameter is not found", () => {
    expect(inputOf(match("PATCH", "/api/pools/a%2Fb/backends/a"), NO_CONTENT)).toMatchObject({
      status: 404,
      detail: expect.stringMatching(/^path\.pool: expected a name of letters.*found "a\/b"$/),
    });
  });
});

describe("a query", () => {
  test("has numbers, booleans and lists by the schema, and defaults", () => {
    expect(query("limit=5&closed=true&listener=a&listener=b%20c")).toMatchObject({
      input: { query: { limit: 5, closed: true, listener: ["a", "b c"] } },
    });
    expect(query("")).toMatchObject({ input: { query: { limit: 100, closed: false, listener: [] } } });
  });

  test.each([
    ["limit=x", 'query.limit: expected a whole number from 1 to 1000, found "x" (a string)'],
    ["limit=0", "query.limit: expected a whole number from 1 to 1000, found 0"],
    ["limit=1.5", "query.limit: expected a whole number from 1 to 1000, found 1.5"],
    ["limit=", 'query.limit: expected a whole number from 1 to 1000, found "" (a string)'],
    ["limit=1&limit=2", "query.limit: is given twice"],
    ["closed=yes", 'query.closed: expected true or false, found "yes" (a string)'],
    ["lmit=5", "query.lmit: there is no such option"],
    ["__proto__=5", "query.__proto__: there is no such option"],
    ["constructor=5", "query.constructor: there is no such option"],
  ])("%s is a bad request", (text, detail) => {
    expect(query(text)).toMatchObject({ status: 400, detail });
  });

  test("with an unknown key is refused with a suggestion", () => {
    expect(query("lmit=5")).toMatchObject({ cure: 'did you mean "limit"?' });
  });
});

describe("a body", () => {
  test("is parsed by its schema", () => {
    expect(patch('{"state": "drain", "timeout": "30s"}')).toMatchObject({
      input: { path: { pool: "web", backend: "a" }, body: { state: "drain", weight: undefined, timeout: 30_000 } },
    });
    expect(patch('{"weight": null}')).toMatchObject({ input: { body: { weight: null } } });
    expect(patch("{}")).toMatchObject({ is: "input" });
    expect(patch("")).toMatchObject({ is: "input" });
  });

  test.each([
    ['{"weight": 300}', "body.weight: expected a whole number from 0 to 256, found 300"],
    ['{"weight": "3"}', 'body.weight: expected a whole number from 0 to 256, found "3" (a string)'],
    ['{"state": null}', 'body.state: expected one of "ready", "drain", "maintenance", found null'],
    ['{"wieght": 3}', "body.wieght: there is no such option"],
    ['{"timeout": "3x"}', expect.stringMatching(/^body\.timeout: expected a duration such as "250ms"/)],
    ['{"state": "drian"}', 'body.state: expected one of "ready", "drain", "maintenance", found "drian"'],
    ['{"limits": {"connections": 99}}', "body.limits.connections: expected a whole number from 1 to 9, found 99"],
    ["[]", "body: expected an object"],
    ["3", "body: expected an object"],
    ["null", "body: expected an object"],
    ["{", "body: expected JSON in UTF-8"],
  ])("%s is a bad request", (body, detail) => {
    expect(patch(body)).toMatchObject({ status: 400, detail });
  });

  test("that is not UTF-8 is a bad request", () => {
    const body = new Uint8Array([0x7b, 0xff, 0x7d]);
    const given = { query: "", body };
    expect(inputOf(match("PATCH", "/api/pools/web/backends/a"), given)).toMatchObject({ status: 400 });
  });

  test("with several faults names each place, and what to do about the first", () => {
    expect(patch('{"weight": 300, "sate": "drain"}')).toMatchObject({
      errors: [
        { at: "body.weight", message: "expected a whole number from 0 to 256, found 300" },
        { at: "body.sate", message: "there is no such option", hint: 'did you mean "state"?' },
      ],
      cure: "GET /api/openapi.json describes what is expected",
    });
  });

  test("that is too large is refused", () => {
    const given = { query: "", body: null };
    expect(inputOf(match("PATCH", "/api/pools/web/backends/a"), given)).toMatchObject({ status: 413 });
  });
});
