// `lb drain`, `lb ready`, `lb maintenance`, `lb weight`: changes one backend of a running lb.
import { askLb } from "./admin-command.ts";
import type { AdminOptions } from "./admin-endpoint.ts";

/** What PATCH of a backend takes. */
export interface BackendChange {
  state?: "ready" | "drain" | "maintenance";
  /** null = the file's. */
  weight?: number | null;
  /** What still lives ends after this time, such as "30s". */
  timeout?: string;
}

/** `name` is POOL/BACKEND: the pool is what stands before the first slash. Prints what changed; the exit code. */
export function changeBackend(name: string, change: BackendChange, options: AdminOptions): Promise<number> {
  const slash = name.indexOf("/");
  const [pool, backend] = [name.slice(0, slash), name.slice(slash + 1)];
  return askLb(options, async (client) => {
    const path = `/api/pools/${encodeURIComponent(pool)}/backends/${encodeURIComponent(backend)}`;
    const { message } = await client.json<{ message: string }>({ method: "PATCH", path, body: change });
    console.log(message);
  });
}
