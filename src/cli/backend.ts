// `lb drain`, `lb ready`, `lb maintenance`, `lb weight`: change one backend of a running lb.
import { askLb } from "./admin-command.ts";
import type { AdminOptions } from "./admin-endpoint.ts";

/** The body of PATCH of a backend. */
export interface BackendChange {
  state?: "ready" | "drain" | "maintenance";
  /** null = the file's weight. */
  weight?: number | null;
  /** Connections that are still open end after this time, such as "30s". */
  timeout?: string;
}

/** `name` is POOL/BACKEND: the pool is the part before the first slash. Prints what changed. Returns the exit code. */
export function changeBackend(name: string, change: BackendChange, options: AdminOptions): Promise<number> {
  const slash = name.indexOf("/");
  const [pool, backend] = [name.slice(0, slash), name.slice(slash + 1)];
  return askLb(options, async (client) => {
    const path = `/api/pools/${encodeURIComponent(pool)}/backends/${encodeURIComponent(backend)}`;
    const { message } = await client.json<{ message: string }>({ method: "PATCH", path, body: change });
    console.log(message);
  });
}
