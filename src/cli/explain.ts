// `lb explain`: what a running lb would do with a client. Nothing is connected.
import type { Explanation } from "../observe/live.ts";
import { askLb } from "./admin-command.ts";
import type { AdminOptions } from "./admin-endpoint.ts";
import { table, type Column } from "./table.ts";

export interface ExplainOptions extends AdminOptions {
  listener: string;
  client: string;
  sni?: string;
  alpn?: string[];
  json?: boolean;
}

/** Prints it. Returns the exit code. */
export function explain({ listener, client, sni, alpn, json, ...options }: ExplainOptions): Promise<number> {
  return askLb(options, async (lb) => {
    const body = { listener, client, ...(sni !== undefined && { sni }), ...(alpn !== undefined && { alpn }) };
    const found = await lb.json<Explanation>({ method: "POST", path: "/api/explain", body });
    if (json === true) return console.log(JSON.stringify(found, null, 2));
    for (const line of explanationText(found)) console.log(line);
  });
}

/** The answer as text: the outcome first, then the reasons. */
function explanationText({ outcome, limits, route, pool, backend, candidates }: Explanation): string[] {
  return [
    `The connection ${outcome}.`,
    "",
    `route    ${route ?? "-"}`,
    `pool     ${pool ?? "-"}`,
    `backend  ${backend ?? "-"}`,
    "",
    ...table(LIMITS, limits),
    "",
    ...table(CANDIDATES, candidates),
  ];
}

const LIMITS: readonly Column<Explanation["limits"][number]>[] = [
  { title: "LIMIT", cell: ({ limit }) => limit },
  { title: "VERDICT", cell: ({ verdict }) => verdict },
  { title: "DETAIL", cell: ({ detail }) => detail },
];

const CANDIDATES: readonly Column<Explanation["candidates"][number]>[] = [
  { title: "BACKEND", cell: ({ backend }) => backend },
  { title: "USABLE", cell: ({ usable }) => (usable ? "yes" : "no") },
  { title: "REASON", cell: ({ reason }) => reason },
];
