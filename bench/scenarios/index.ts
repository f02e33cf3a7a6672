// All scenarios, in the order of the report. A new scenario is a file and a line here.
import type { Scenario } from "../scenario.ts";
import { backends } from "./backends.ts";
import { bulk, bulk50 } from "./bulk.ts";
import { connections } from "./connections.ts";
import { features } from "./features.ts";
import { latency } from "./latency.ts";
import { memory } from "./memory.ts";
import { requests } from "./requests.ts";
import { start } from "./start.ts";
import { syscalls } from "./syscalls.ts";
import { tlsBulk, tlsBulk50 } from "./tls-bulk.ts";
import { tlsHandshakes, tlsHandshakesRsa } from "./tls-handshakes.ts";
import { tlsMemory } from "./tls-memory.ts";
import { tlsRequests } from "./tls-requests.ts";
import { tlsResumed } from "./tls-resumed.ts";

export const scenarios: Scenario[] = [
  ...[requests, connections, bulk, bulk50, latency, memory, start, syscalls, features, backends],
  ...[tlsHandshakes, tlsHandshakesRsa, tlsResumed, tlsRequests, tlsBulk, tlsBulk50, tlsMemory],
];
