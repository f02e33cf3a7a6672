// The names of the balancing algorithms and of the hash keys, as in the config, the plans and the status.

/** In the order of the documentation. */
export const BALANCES = [
  "round_robin",
  "least_connections",
  "random_two",
  "least_latency",
  "source_hash",
  "first",
] as const;
export type Balance = (typeof BALANCES)[number];

/** Whether slow_start has an effect. */
export function canRamp(balance: Balance): boolean {
  return balance !== "source_hash" && balance !== "first";
}

/** What source_hash hashes of a connection. */
export const HASH_KEYS = ["client", "client_port", "sni"] as const;
export type HashKeyName = (typeof HASH_KEYS)[number];
