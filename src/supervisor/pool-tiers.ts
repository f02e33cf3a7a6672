// Combines what is known of the backends of a pool: the inputs of its tiers, and the tiers.
import type { PoolConfig } from "../config/schema.ts";
import { canRamp } from "../core/balance.ts";
import { isUsable, tiersOf, type Tier, type TierInput } from "../policy/tiers.ts";
import type { OperatorOrder } from "./runtime-changes.ts";
import type { BackendRecord, PoolRecord } from "./registry.ts";

/** The tiers of the pool as they are now. */
export function poolTiers(pool: PoolRecord): Tier[] {
  const inputs = pool.backends.map((backend) => tierInput(pool, backend));
  return tiersOf(inputs, pool.config.panic_threshold);
}

/** Whether the backend takes new connections, apart from panic mode. */
export function takesConnections(pool: PoolRecord, backend: BackendRecord): boolean {
  return isUsable(tierInput(pool, backend));
}

/** Whether backends of the pool ramp when they come up. */
export function ramps({ slow_start, balance }: PoolConfig): boolean {
  return slow_start > 0 && canRamp(balance);
}

/** The operators' order for the backend. */
export function orderOf({ changes }: PoolRecord, { config, address }: BackendRecord): OperatorOrder {
  return changes.order(config, address);
}

/** The input that decides the place of the backend in the tiers. */
export function tierInput(pool: PoolRecord, backend: BackendRecord): TierInput {
  const { id, up, agent, state, config: own } = backend;
  const order = orderOf(pool, backend);
  return {
    id,
    healthUp: up,
    ejected: state.ejection.untilMs !== null,
    drained: agent.state !== "ready" || order.state !== "ready",
    weight: ((order.weight ?? own.weight) * agent.percent) / 100,
    priority: Number(own.backup),
    ramp: ramps(pool.config) ? state.ramp : 1,
  };
}
