// The closed list of the ways in which a connection ends: the value in the access log and the label in the metrics. A new end is one row
// here; the README's table is tested against it.

/** Who ended it. */
export const ENDED_BY = ["client", "backend", "lb"] as const;
export type EndedBy = (typeof ENDED_BY)[number];

/** EndedBy → its number, for the cells of counters and for the hot path. */
export const ENDED_BY_CODES = Object.fromEntries(ENDED_BY.map((by, code) => [by, code])) as Record<EndedBy, number>;

/** Every end with its documentation. The order is that of the counters' cells. */
export const ENDS = {
  eof: "both sides sent FIN and every byte was passed on; `end_by` is the side that sent FIN first",
  reset: "one side reset the connection (RST), or vanished while data was in flight; the reset was passed on",
  idle_timeout: "no byte in either direction for `timeouts.idle`",
  half_close_timeout: "one side had sent FIN, and the other sent nothing for `timeouts.half_close`",
  lifetime: "the connection reached the age of `timeouts.lifetime`",
  handshake_timeout: "PROXY header, ClientHello and TLS handshake were not complete within `timeouts.handshake`",
  handshake_failed: "the TLS handshake failed",
  proxy_header_bad: "a PROXY header was required and missing, malformed, or came from an address that is not trusted",
  denied: "refused by `allow` or `deny`",
  rate_limited: "the client opened connections faster than `rate_limit` allows",
  process_full: "the process was at its `max_connections`",
  listener_full: "the listener was at its `max_connections`",
  client_full: "the client was at its `max_connections_per_client`, or the table of clients was full",
  no_route: "no route matched the connection and the listener has no pool",
  no_backend: "no backend of the pool was up",
  connect_refused: "the last backend that was tried refused the connection",
  connect_timeout: "the last backend that was tried did not answer within `connect_timeout`",
  connect_failed:
    "the last backend that was tried could not be reached for another reason, which `error` names; `end_by` is lb if this machine lacked a resource",
  backend_down: 'the backend went down and the pool has `on_down = "reset"`',
  queue_full: "every backend was at its `max_connections` and the queue was full",
  queue_timeout: "every backend was at its `max_connections` for `queue.timeout`",
  shutdown: "the process was stopping and `shutdown_timeout` had passed, or a second signal came",
  drain: "the listener or backend was drained, and the drain timeout had passed",
  killed: "ended through the admin API",
  worker_lost: "the worker thread that served the connection died",
} as const;

export type End = keyof typeof ENDS;

/** Ends of clients that a limit has turned away. */
export const REFUSALS: ReadonlySet<End> = new Set<End>([
  "denied",
  "rate_limited",
  "process_full",
  "listener_full",
  "client_full",
]);

/** Ends of connections that never reached a backend, because of a limit or because no backend could take them. */
export const UNSERVED: ReadonlySet<End> = new Set<End>([
  ...REFUSALS,
  "no_route",
  "no_backend",
  "queue_full",
  "queue_timeout",
]);

export const END_NAMES = Object.keys(ENDS) as End[];

/** End → its number, for the cells of counters and for the hot path. */
export const END_CODES = Object.fromEntries(END_NAMES.map((name, code) => [name, code])) as Record<End, number>;
