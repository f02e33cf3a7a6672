// `lb clients`: the clients of a running lb that matter most.
import { formatBytes, formatCount } from "../core/format.ts";
import { askLb } from "./admin-command.ts";
import type { AdminOptions } from "./admin-endpoint.ts";
import { table, type Column } from "./table.ts";

/** One entry of GET /api/clients. */
export interface ClientFigures {
  client: string;
  open: number;
  /** Of the last minute, as all below. */
  new_connections: number;
  bytes_in: number;
  bytes_out: number;
  refused: number;
}

/** Prints them. The exit code. */
export function clients(options: AdminOptions & { sort?: string; limit?: number; json?: boolean }): Promise<number> {
  const { sort, limit } = options;
  return askLb(options, async (client) => {
    const list = await client.json<{ clients: ClientFigures[] }>({
      method: "GET",
      path: "/api/clients",
      query: { sort, limit },
    });
    if (options.json === true) return console.log(JSON.stringify(list, null, 2));
    for (const line of table(COLUMNS, list.clients)) console.log(line);
  });
}

const COLUMNS: readonly Column<ClientFigures>[] = [
  { title: "CLIENT", cell: ({ client }) => client },
  { title: "OPEN", align: "right", cell: ({ open }) => String(open) },
  { title: "NEW/MIN", align: "right", cell: ({ new_connections }) => formatCount(new_connections) },
  { title: "REFUSED/MIN", align: "right", cell: ({ refused }) => formatCount(refused) },
  { title: "IN/MIN", align: "right", cell: ({ bytes_in }) => formatBytes(bytes_in) },
  { title: "OUT/MIN", align: "right", cell: ({ bytes_out }) => formatBytes(bytes_out) },
];
