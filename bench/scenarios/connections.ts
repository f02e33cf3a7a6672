// A connection per request: the cost of accept, connect and close.
import { bareRelay, direct, haproxy, lb, nginx } from "../contenders.ts";
import { throughput } from "./throughput.ts";

/** The runtime optimizes the code of a connection during the first 20,000: they cost a quarter more. */
const warmSecondsMin = 4;

export const connections = throughput({
  name: "connections",
  about: `wrk, 64 at a time, \`Connection: close\`: each request on a new connection; at least ${warmSecondsMin} s to warm up.`,
  contenders: [lb, haproxy, nginx, bareRelay, direct],
  task: { connections: 64, close: true },
  titles: { rate: "new connections", cpu: "CPU per million connections" },
  unit: "connections/s",
  warmSecondsMin,
});
