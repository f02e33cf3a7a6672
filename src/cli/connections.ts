// `lb connections`: lists the live connections of a running lb, or ends some of them.
import { createInterface } from "node:readline/promises";
import { formatByteRate, formatBytes, formatDuration } from "../core/format.ts";
import { destination } from "../observe/figures.ts";
import type { ConnectionList, ConnectionStatus } from "../observe/live.ts";
import type { AdminClient, AdminRequest } from "./admin-client.ts";
import { askLb } from "./admin-command.ts";
import type { AdminOptions } from "./admin-endpoint.ts";
import { table, type Column } from "./table.ts";

export interface ConnectionsOptions extends AdminOptions {
  client?: string;
  listener?: string;
  pool?: string;
  backend?: string;
  sort?: string;
  limit?: number;
  json?: boolean;
  kill?: boolean;
  yes?: boolean;
}

const PATH = "/api/connections";

/** Prints the connections that match the filters, or ends them. Returns the exit code. */
export function connections(options: ConnectionsOptions): Promise<number> {
  return askLb(options, async (client) => {
    if (options.kill === true) return kill(client, options);
    const list = await client.json<ConnectionList>(listing(options));
    if (options.json === true) return console.log(JSON.stringify(list, null, 2));
    for (const line of table(COLUMNS, list.connections)) console.log(line);
    if (list.total > list.connections.length) {
      console.log(`${list.connections.length} of ${list.total} connections; --limit shows more`);
    }
  });
}

function listing(options: ConnectionsOptions): AdminRequest {
  const { sort, limit } = options;
  return { method: "GET", path: PATH, query: { ...filters(options), sort, limit } };
}

function filters({ client, listener, pool, backend }: ConnectionsOptions): AdminRequest["query"] & object {
  return { client, listener, pool, backend };
}

async function kill(client: AdminClient, options: ConnectionsOptions): Promise<number> {
  const query = filters(options);
  if (options.yes !== true) {
    const { total } = await client.json<{ total: number }>({
      method: "GET",
      path: PATH,
      query: { ...query, limit: 1 },
    });
    if (!(await confirmed(`End ${total} connections with a reset?`))) {
      console.error("lb: nothing was ended; --yes ends connections without a question");
      return 1;
    }
  }
  const { ended } = await client.json<{ ended: number }>({ method: "DELETE", path: PATH, query });
  console.log(`${ended} connections were ended`);
  return 0;
}

async function confirmed(question: string): Promise<boolean> {
  if (!process.stdin.isTTY) return false;
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await lines.question(`${question} [y/N] `);
  lines.close();
  return /^y(es)?$/i.test(answer.trim());
}

const COLUMNS: readonly Column<ConnectionStatus>[] = [
  { title: "ID", align: "right", cell: ({ id }) => String(id) },
  { title: "CLIENT", cell: ({ client }) => client },
  { title: "PEER", cell: ({ peer }) => peer ?? "" },
  { title: "SNI", cell: ({ sni }) => sni ?? "" },
  { title: "LISTENER", cell: ({ listener }) => listener },
  { title: "BACKEND", cell: destination },
  { title: "PHASE", cell: ({ phase }) => phase },
  { title: "AGE", align: "right", cell: ({ age_ms }) => formatDuration(age_ms) },
  { title: "IN", align: "right", cell: ({ bytes_in }) => formatBytes(bytes_in) },
  { title: "OUT", align: "right", cell: ({ bytes_out }) => formatBytes(bytes_out) },
  { title: "RATE IN", align: "right", cell: ({ rate_in }) => formatByteRate(rate_in) },
  { title: "RATE OUT", align: "right", cell: ({ rate_out }) => formatByteRate(rate_out) },
  { title: "WORKER", align: "right", cell: ({ worker }) => String(worker) },
];
