// Maps a request to its route and the input of the operation, or to the error. Pure.
import { safeParse } from "valibot";
import { formatPath } from "../config/problem.ts";
import type { Rows } from "../config/rows.ts";
import { closest } from "../config/suggest.ts";
import { isTable, quote } from "../config/wording.ts";
import type { Access, Fields, Input, Route } from "./route.ts";

/** What is wrong with a request. */
export interface Refusal {
  status: number;
  detail: string;
  cure?: string;
  headers?: Record<string, string>;
  /** Access that is needed to see this error; the default is that of the method. */
  access?: Access;
  /** Each invalid place with the reason. */
  errors?: { at: string; message: string; hint?: string }[];
}

export interface Match {
  route: Route;
  /** Values of the parameters in the path, percent-decoded. */
  values: Record<string, string>;
}

/** The route for a method and a path. HEAD is GET without content (RFC 9110 section 9.3.2), which the server omits. */
export function findRoute(routes: readonly Route[], method: string, path: string): Match | Refusal {
  const matches = routes.flatMap((route) => {
    const values = matchPath(route.path, path);
    return values === null ? [] : [{ route, values }];
  });
  const wanted = method === "HEAD" ? "GET" : method;
  const found = matches.find(({ route }) => route.method === wanted);
  if (found !== undefined) return found;
  if (matches.length > 0) {
    const methods = matches.map(({ route }) => (route.method === "GET" ? "GET, HEAD" : route.method));
    const allow = [...new Set(methods)].join(", ");
    const isOpen = matches.every(({ route }) => route.access === "open");
    return {
      status: 405,
      detail: `only ${allow} is allowed here`,
      headers: { Allow: allow },
      ...(isOpen && { access: "open" }),
    };
  }
  const paths = [...new Set(routes.map((route) => route.path))];
  const meant = closest(path, paths);
  const hint = meant === null ? "" : `did you mean ${meant}? `;
  return {
    status: 404,
    detail: `there is no ${quote(path)}`,
    cure: `${hint}GET /api/openapi.json describes every path`,
  };
}

function matchPath(template: string, path: string): Record<string, string> | null {
  const parts = template.split("/");
  const given = path.split("/");
  if (parts.length !== given.length) return null;
  const values: Record<string, string> = {};
  for (const [index, part] of parts.entries()) {
    const text = given[index]!;
    if (!part.startsWith("{")) {
      if (part !== text) return null;
    } else {
      if (text === "") return null;
      values[part.slice(1, -1)] = decoded(text);
    }
  }
  return values;
}

/** A name in a path. A malformed escape stays as it is, and no name matches it. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Everything but the path of a request. */
export interface Content {
  /** Without the question mark. */
  query: string;
  /** null = larger than the maximum. */
  body: Uint8Array | null;
}

/** The input of a route's operation. */
export function inputOf({ route, values }: Match, content: Content): { is: "input"; input: Input } | Refusal {
  const path = parsed(route.parameters, withNumbers(route.parameters.rows, values), "path");
  // An invalid name does not exist.
  if ("status" in path) return { ...path, status: 404 };
  const query = queryOf(route, content.query);
  if ("status" in query) return query;
  const body = bodyOf(route.body, content);
  if ("status" in body) return body;
  return { is: "input", input: { path: path.value, query: query.value, body: body.value } };
}

function queryOf({ query: fields }: Route, text: string): { value: unknown } | Refusal {
  if (fields === null) return { value: {} };
  const given = new Map<string, string | string[]>();
  for (const [key, value] of new URLSearchParams(text)) {
    const before = given.get(key);
    const isList = Object.hasOwn(fields.rows, key) && typeOf(fields.rows, key) === "array";
    if (isList) given.set(key, [...((before as string[] | undefined) ?? []), value]);
    else if (before === undefined) given.set(key, value);
    else return badRequest([{ at: `query.${key}`, message: "is given twice" }]);
  }
  return parsed(fields, withNumbers(fields.rows, Object.fromEntries(given)), "query");
}

function bodyOf(fields: Fields, { body }: Content): { value: unknown } | Refusal {
  if (body === null) return { status: 413, detail: `the body is larger than ${BODY_BYTES_MAX} bytes` };
  if (body.length === 0) return parsed(fields, {}, "body");
  // Whatever its Content-Type: curl -d names that of a form, and pages of other origins are refused by other headers (access.ts).
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch {
    return badRequest([{ at: "body", message: "expected JSON in UTF-8" }]);
  }
  if (isTable(value)) return parsed(fields, value, "body");
  return badRequest([{ at: "body", message: "expected an object" }]);
}

/** The body of a request. */
export const BODY_BYTES_MAX = 64 * 1024;

/** Numbers and booleans are text in a URL. */
function withNumbers(rows: Rows, given: Record<string, string | string[]>): Record<string, unknown> {
  const entries = Object.entries(given).map(([key, value]) => {
    if (typeof value !== "string" || !Object.hasOwn(rows, key)) return [key, value] as const;
    const type = typeOf(rows, key);
    if (type === "number" && /^-?\d+(\.\d+)?$/.test(value)) return [key, Number(value)] as const;
    if (type === "boolean" && (value === "true" || value === "false")) return [key, value === "true"] as const;
    return [key, value] as const;
  });
  return Object.fromEntries(entries);
}

/** "string", "number", "array" and so on. */
function typeOf(rows: Rows, key: string): string {
  return rows[key]!.row.kind.type;
}

const ERRORS_MAX = 20;

function parsed(fields: Fields, given: object, where: "path" | "query" | "body"): { value: unknown } | Refusal {
  const result = safeParse(fields.schema, given);
  if (result.success) return { value: result.output };
  const errors = result.issues.slice(0, ERRORS_MAX).map((issue) => {
    const path = (issue.path ?? []).map((item) => item.key as string | number);
    const [message = "", hint] = issue.message.split("\n");
    return { at: formatPath([where, ...path]), message, ...(hint !== undefined && { hint }) };
  });
  return badRequest(errors);
}

function badRequest(errors: NonNullable<Refusal["errors"]>): Refusal {
  const { at, message, hint } = errors[0]!;
  const cure = hint ?? "GET /api/openapi.json describes what is expected";
  return { status: 400, detail: `${at}: ${message}`, cure, errors };
}
