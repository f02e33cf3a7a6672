// Small requests on persistent TLS connections: the cost of a relayed chunk that is decrypted in one direction and encrypted in the other.
import { withTls } from "../contenders.ts";
import { throughput } from "./throughput.ts";

export const tlsRequests = throughput({
  name: "tls-requests",
  about: "wrk over TLS 1.3 with AES-256-GCM, 64 connections that stay, a small answer from memory.",
  contenders: withTls("ecdsa"),
  task: { connections: 64, close: false, tls: true },
  titles: { rate: "requests over TLS", cpu: "CPU per million requests over TLS" },
  unit: "requests/s",
  wanted: 1,
});
