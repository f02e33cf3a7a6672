// Why a backend gets no connections, in words: for the log, the status and explain.
import { formatDuration } from "../config/units.ts";
import type { Failures } from "../policy/ejection.ts";
import type { HealthChecks } from "./health.ts";
import type { BackendRecord, PoolRecord } from "./registry.ts";

/** Why the last health check failed, or that the agent says down; null = neither. */
export function healthReason(health: Pick<HealthChecks, "facts" | "agent">, backendId: number): string | null {
  return health.facts(backendId)?.lastError ?? health.agent(backendId)?.downReason ?? null;
}

/** "3 failed connects within 10s": why passive health has ejected the backend, now or the last time. */
export function ejectionReason({ config: { passive } }: PoolRecord, { state }: BackendRecord): string {
  const failures = failuresText(state.ejection.causes);
  return passive === null ? failures : `${failures} within ${formatDuration(passive.window)}`;
}

/** "4 failed connects and 1 early reset" */
function failuresText({ connect, earlyReset }: Failures): string {
  return [
    connect > 0 ? `${connect} failed connect${connect === 1 ? "" : "s"}` : [],
    earlyReset > 0 ? `${earlyReset} early reset${earlyReset === 1 ? "" : "s"}` : [],
  ]
    .flat()
    .join(" and ");
}
