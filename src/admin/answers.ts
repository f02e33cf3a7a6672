// Responses of the admin endpoint: values, and errors in the form of RFC 9457.
import type { OperationError, OperationErrorName } from "./operations.ts";
import type { HttpResponse } from "./http-server.ts";
import type { Refusal } from "./input.ts";

/** The HTTP status of each error of an operation. */
export const STATUSES: Record<OperationErrorName, number> = {
  no_condition: 400,
  no_dashboard: 404,
  no_such_listener: 404,
  no_such_pool: 404,
  no_such_backend: 404,
  no_such_connection: 404,
  no_such_worker: 404,
  backend_exists: 409,
  bad_change: 400,
  change_failed: 422,
  worker_not_running: 409,
  stopping: 409,
  reload_failed: 422,
};

/** RFC 9110 section 15. */
const TITLES: Record<number, string> = {
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  409: "Conflict",
  413: "Content Too Large",
  422: "Unprocessable Content",
  500: "Internal Server Error",
  503: "Service Unavailable",
};

export function refused({ status, detail, cure, headers, errors }: Refusal): HttpResponse {
  return problem(status, detail, headers, { ...(cure !== undefined && { cure }), ...(errors && { errors }) });
}

/** The response for an error of an operation. */
export function failed({ name, detail, cure }: OperationError): HttpResponse {
  return problem(STATUSES[name], detail, {}, { error: name, cure, ok: false, message: detail });
}

/** `title` is that of the status, `detail` says what is wrong with this request. `more` holds extension members (section 3.2). */
export function problem(
  status: number,
  detail: string,
  headers: Record<string, string> = {},
  more: Record<string, unknown> = {},
): HttpResponse {
  const content = `${JSON.stringify({ type: "about:blank", title: TITLES[status], status, detail, ...more }, null, 2)}\n`;
  return { status, headers: { "Content-Type": "application/problem+json", ...headers }, content };
}
