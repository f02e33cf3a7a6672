// The dashboard's files, which the build embeds into the executable, and their routes. They contain no data, so they need no token: the
// page asks the user for one and sends it with its requests.
import { route, text, type Route } from "./route.ts";
import { failure, type Result } from "./operations.ts";

const FILES = [
  { path: "/", file: "page", contentType: "text/html; charset=utf-8" },
  { path: "/dashboard.js", file: "script", contentType: "text/javascript; charset=utf-8" },
  { path: "/dashboard.css", file: "style", contentType: "text/css; charset=utf-8" },
] as const;

/** https://www.w3.org/TR/CSP3/: only resources of this origin, no inline code. The icon is an empty data: URL. */
const HEADERS = {
  "Content-Security-Policy": [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "img-src data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; "),
};

export const DASHBOARD_ROUTES: readonly Route[] = FILES.map(({ path, file, contentType }) =>
  route({
    name: `getDashboard${file[0]?.toUpperCase()}${file.slice(1)}`,
    method: "GET",
    path,
    access: "open",
    summary: `The dashboard's ${file}`,
    query: "any",
    errors: ["no_dashboard"],
    reply: text<string>({ description: `The ${file}.`, contentType, headers: HEADERS }, (content) => ({
      status: 200,
      content,
    })),
    handle: (operations): Result<string> => {
      const dashboard = operations.dashboard();
      if (dashboard !== null) return { ok: true, value: dashboard[file] };
      return failure(
        "no_dashboard",
        "this lb runs from its sources, which have no dashboard",
        "npm run build, then dist/lb",
      );
    },
  }),
);
