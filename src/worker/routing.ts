// Routes a connection once all facts that its listener's routes use are known.
import type { ClientHello } from "../wire/client-hello.ts";
import type { Connection } from "./connection.ts";
import { dial } from "./dialing.ts";

/** Chooses the pool and dials; `bytes` were received from the client and go to the backend. Hot path. */
export function route(connection: Connection, hello: ClientHello | null, bytes: Uint8Array | null = null): void {
  const { listener, host, row } = connection;
  if (hello !== null) connection.noteSni(hello.serverName ?? "");
  if (listener.routes.length > 0) {
    const alpn = hello?.alpn ?? (connection.facts?.alpn ? [connection.facts.alpn] : []);
    connection.pool = listener.routeFor(host.words, row, connection.sni, alpn);
  }
  dial(connection);
  // A flow wants a buffer that ends with its bytes.
  if (bytes !== null && bytes.length > 0) connection.clientData(bytes.slice());
}
