// A connection per request: the cost of accept, connect and close.
import { bareRelay, direct, haproxy, lb, nginx } from "../contenders.ts";
import { throughput } from "./throughput.ts";

export const connections = throughput({
  name: "connections",
  about: "wrk, 64 at a time, `Connection: close`: each request on a new connection.",
  contenders: [lb, haproxy, nginx, bareRelay, direct],
  task: { connections: 64, close: true },
  titles: { rate: "new connections", cpu: "CPU per million connections" },
  unit: "connections/s",
  // The runtime optimizes the code of a connection during the first 20,000: they cost a quarter more.
  warmSecondsMin: 4,
});
