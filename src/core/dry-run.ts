// The limits of a listener that can be evaluated without being enforced (`dry_run`).

/** The index of a limit is its bit in the ledger, and its cell in a listener's row of counters. */
export const DRY_RUN_LIMITS = ["rate_limit", "max_connections_per_client", "bandwidth"] as const;
export type DryRunLimit = (typeof DRY_RUN_LIMITS)[number];

/** The bit of a limit in a set of them. */
export function dryRunBit(limit: DryRunLimit): number {
  return 1 << DRY_RUN_LIMITS.indexOf(limit);
}

/** The limits of a set in the form of the access log: "" = none. */
export function dryRunNames(bits: number): string {
  if (bits === 0) return "";
  return DRY_RUN_LIMITS.filter((limit) => (bits & dryRunBit(limit)) !== 0).join(",");
}
