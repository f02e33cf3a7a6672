// A connection and a client as /api/connections and /api/clients list them.
import type { ClientStatus, ConnectionStatus } from "../../src/observe/live.ts";

export const CONNECTION: ConnectionStatus = {
  id: 17,
  listener: "web",
  client: "192.0.2.1:4000",
  peer: null,
  sni: null,
  pool: "app",
  backend: "b1",
  phase: "relaying",
  age_ms: 1000,
  bytes_in: 1,
  bytes_out: 2,
  rate_in: 0,
  rate_out: 0,
  worker: 0,
};

export const CLIENT: ClientStatus = {
  client: "192.0.2.1",
  open: 3,
  new_connections: 9,
  bytes_in: 1,
  bytes_out: 2,
  refusals: 4,
  error: { new_connections: 0, bytes_in: 0, bytes_out: 0, refusals: 0 },
};
