// Small requests on persistent connections: the cost of a relayed chunk.
import { direct, haproxy, lb, nginx } from "../contenders.ts";
import { throughput } from "./throughput.ts";

export const requests = throughput({
  name: "requests",
  about: "wrk, 64 connections that stay, a small answer from memory.",
  contenders: [lb, haproxy, nginx, direct],
  task: { connections: 64, close: false },
  titles: { rate: "requests", cpu: "CPU per million requests" },
  unit: "requests/s",
});
