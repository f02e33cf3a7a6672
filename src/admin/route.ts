// Describes a route of the admin endpoint: the schemas of input and output, the required access, and the operation. Requests are validated
// by these schemas (input.ts), and the OpenAPI document is generated from them (openapi.ts).
import type { GenericSchema, InferOutput } from "valibot";
import { section, type Rows } from "../config/rows.ts";
import type { Kind } from "../config/wording.ts";
import type { OperationErrorName, Operations, Result } from "./operations.ts";

export type Method = "GET" | "POST" | "PATCH" | "DELETE";

/** open: everyone, for probes, which have no token. read and change: with a token if one is configured. */
export type Access = "open" | "read" | "change";

/** The rows of an object, and a schema that refuses unknown keys. */
export interface Fields {
  rows: Rows;
  schema: Kind<unknown, unknown>;
}

export interface Route {
  /** For the OpenAPI document: `operationId`. */
  name: string;
  method: Method;
  /** With parameters in braces, such as "/api/pools/{pool}". A parameter is one segment, percent-decoded. */
  path: string;
  access: Access;
  summary: string;
  parameters: Fields;
  /** null = a query is ignored. */
  query: Fields | null;
  body: Fields;
  /** Errors that the operation can return. */
  errors: readonly OperationErrorName[];
  reply: Reply;
  handle: (operations: Operations, input: Input) => Promise<Result<unknown>>;
}

export interface Input {
  path: unknown;
  query: unknown;
  body: unknown;
}

/** How the value of an operation becomes a response. */
export interface Reply {
  description: string;
  contentType: string;
  /** The schema of the value, if the content is JSON. */
  schema: GenericSchema | null;
  /** The name of the schema in the OpenAPI document. */
  schemaName: string | null;
  /** In addition to Content-Type and the headers of every response, which they replace. */
  headers: Readonly<Record<string, string>>;
  /** Whether the content is a stream; the number of streams is limited. */
  streams: boolean;
  /** Statuses other than 200 that `render` returns, with their meaning. */
  statuses: Readonly<Record<number, string>>;
  render: (value: unknown) => Rendered;
}

export interface Rendered {
  status: number;
  content: string | ReadableStream<Uint8Array>;
}

/** A reply whose value has the type T. The type exists only for the compiler. */
export type ReplyOf<T> = Reply & { readonly value?: T };

/** A route in its written form: rows instead of schemas, and a handler that gets the values that they produce from the request. */
export interface RouteSource<P extends Rows, Q extends Rows, B extends Rows, T> {
  name: string;
  method: Method;
  path: string;
  access: Access;
  summary: string;
  parameters?: P;
  /** "any" = a query is ignored. */
  query?: Q | "any";
  body?: B;
  errors?: readonly OperationErrorName[];
  reply: ReplyOf<T>;
  handle: (
    operations: Operations,
    input: { path: Parsed<P>; query: Parsed<Q>; body: Parsed<B> },
  ) => Result<NoInfer<T>> | Promise<Result<NoInfer<T>>>;
}

type Parsed<R extends Rows> = { [K in keyof R]: InferOutput<R[K]> };

export function route<
  T,
  P extends Rows = Record<never, never>,
  Q extends Rows = Record<never, never>,
  B extends Rows = Record<never, never>,
>(source: RouteSource<P, Q, B, T>): Route {
  const { parameters = {}, query = {}, body = {}, errors = [], handle } = source;
  return {
    ...source,
    parameters: fields(parameters),
    query: query === "any" ? null : fields(query),
    body: fields(body),
    errors,
    // The input was produced by the schemas of the same rows.
    handle: async (operations, input) => handle(operations, input as Parameters<typeof handle>[1]),
  };
}

function fields(rows: Rows): Fields {
  return { rows, schema: section("{}", rows) as Kind<unknown, unknown> };
}

// ---------------------------------------------------------------------- replies

/** The value as JSON. `schemaName` is its name in the OpenAPI document. */
export function json<S extends GenericSchema>(
  schemaName: string,
  schema: S,
  description: string,
): ReplyOf<InferOutput<S>> {
  const render = (value: unknown): Rendered => ({ status: 200, content: `${JSON.stringify(value, null, 2)}\n` });
  return {
    description,
    contentType: "application/json; charset=utf-8",
    schema,
    schemaName,
    headers: {},
    streams: false,
    statuses: {},
    render,
  };
}

/** Text that `render` makes from the value. */
export function text<T>(
  reply: {
    description: string;
    contentType?: string;
    headers?: Record<string, string>;
    statuses?: Record<number, string>;
  },
  render: (value: T) => Rendered,
): ReplyOf<T> {
  const { description, contentType = "text/plain; charset=utf-8", headers = {}, statuses = {} } = reply;
  return {
    description,
    contentType,
    schema: null,
    schemaName: null,
    headers,
    streams: false,
    statuses,
    render: render as (value: unknown) => Rendered,
  };
}

/** A stream that the operation returns. */
export function stream(description: string, contentType: string): ReplyOf<ReadableStream<Uint8Array>> {
  const render = (content: unknown): Rendered => ({ status: 200, content: content as ReadableStream<Uint8Array> });
  const statuses = { 503: "As many streams as there may be are open." };
  return { description, contentType, schema: null, schemaName: null, headers: {}, streams: true, statuses, render };
}
