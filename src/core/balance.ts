// The names of the balancing algorithms and of what they may hash: the words of the config, of plans and of the status.

/** In the order in which the documentation lists them. */
export const BALANCES = [
  "round_robin",
  "least_connections",
  "random_two",
  "least_latency",
  "source_hash",
  "first",
] as const;
export type Balance = (typeof BALANCES)[number];

/** What source_hash hashes of a connection. */
export const HASH_KEYS = ["client", "client_port", "sni"] as const;
export type HashKeyName = (typeof HASH_KEYS)[number];
