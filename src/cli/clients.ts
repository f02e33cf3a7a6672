// `lb clients`: the top clients of a running lb.
import { formatBytes, formatCount } from "../core/format.ts";
import type { ClientList, ClientStatus } from "../observe/live.ts";
import { askLb } from "./admin-command.ts";
import type { AdminOptions } from "./admin-endpoint.ts";
import { table, type Column } from "./table.ts";

/** Prints them. Returns the exit code. */
export function clients(options: AdminOptions & { sort?: string; limit?: number; json?: boolean }): Promise<number> {
  const { sort, limit } = options;
  return askLb(options, async (client) => {
    const list = await client.json<ClientList>({
      method: "GET",
      path: "/api/clients",
      query: { sort, limit },
    });
    if (options.json === true) return console.log(JSON.stringify(list, null, 2));
    for (const line of table(COLUMNS, list.clients)) console.log(line);
  });
}

const COLUMNS: readonly Column<ClientStatus>[] = [
  { title: "CLIENT", cell: ({ client }) => client },
  { title: "OPEN", align: "right", cell: ({ open }) => String(open) },
  { title: "NEW/MIN", align: "right", cell: ({ new_connections }) => formatCount(new_connections) },
  { title: "REFUSED/MIN", align: "right", cell: ({ refusals }) => formatCount(refusals) },
  { title: "IN/MIN", align: "right", cell: ({ bytes_in }) => formatBytes(bytes_in) },
  { title: "OUT/MIN", align: "right", cell: ({ bytes_out }) => formatBytes(bytes_out) },
];
