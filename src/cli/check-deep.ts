// `lb check --deep FILE`: checks of a valid config that need this machine and the network: whether its addresses can be bound, its access
// log can be written, its names resolve, and its backends answer a health check.
import { resolve } from "node:path";
import type { Config, ListenerConfig } from "../config/schema.ts";
import { formatEndpoint, type Address } from "../core/address.ts";
import { TlsClient } from "../platform/tls-client.ts";
import { connectOnly } from "../wire/exchange.ts";
import type { Snapshot } from "../observe/snapshot.ts";
import { healthSpec, tlsPlan } from "../supervisor/check-spec.ts";
import { accessLogTrouble } from "../supervisor/access-sink.ts";
import { lookUp } from "../supervisor/lookup.ts";
import { Probe, type Outcome } from "../supervisor/probe.ts";
import { Registry, type BackendRecord, type PoolRecord } from "../supervisor/registry.ts";
import { ListeningSockets } from "../supervisor/sockets.ts";
import { transparencyTrouble } from "../supervisor/transparency.ts";
import { AdminClient, AdminError } from "./admin-client.ts";
import { adminEndpoint } from "./admin-endpoint.ts";

/** Maximum number of backends that are checked at once. */
const PROBES_AT_ONCE = 64;
const NAME_MS = 5000;

export interface Finding {
  verdict: "ok" | "warning" | "failed";
  /** The path in the config: "listeners.web". */
  at: string;
  text: string;
}

/** Passes each finding to `told` at once. Returns the number of failures. */
export async function checkDeep(config: Config, file: string, told: (finding: Finding) => void): Promise<number> {
  let failed = 0;
  const tell = (finding: Finding): void => {
    if (finding.verdict === "failed") failed++;
    told(finding);
  };
  const isRunning = config.admin.enabled && (await runsWith(file));
  for (const listener of config.listeners) await bindAll(config, listener, isRunning, tell);
  const trouble = await accessLogTrouble(config.log.access);
  if (trouble !== null) tell({ verdict: "failed", at: "log.access", text: trouble });
  const opaque = transparencyTrouble(config);
  if (opaque !== null) tell({ verdict: "failed", at: "pools", text: opaque });
  const addresses = await resolveAll(config, tell);
  const { pools } = new Registry().draft(config, 1, (host) => addresses.get(host) ?? []);
  for (const pool of pools) await askAll(pool, tell);
  return failed;
}

/** Whether an lb runs with this file: in that case its addresses are in use by that lb. Another lb may have the same admin address. */
async function runsWith(file: string): Promise<boolean> {
  const endpoint = adminEndpoint({ config: file }, process.env);
  if ("error" in endpoint) return false;
  try {
    const asked = { method: "GET", path: "/api/status", timeoutMs: 1000 } as const;
    const { config } = await new AdminClient(endpoint).json<Snapshot>(asked);
    return resolve(config.file) === resolve(file);
  } catch (error) {
    if (error instanceof AdminError) return false;
    throw error;
  }
}

async function bindAll(
  config: Config,
  listener: ListenerConfig,
  isRunning: boolean,
  tell: (finding: Finding) => void,
): Promise<void> {
  for (const endpoint of listener.bind) {
    const sockets = new ListeningSockets();
    const bound = await sockets.bind({ ...config, listeners: [{ ...listener, bind: [endpoint] }] }, 1);
    sockets.stopAll();
    const [at, name] = [`listeners.${listener.name}`, formatEndpoint(endpoint)];
    if (!("error" in bound)) tell({ verdict: "ok", at, text: `${name} can be bound` });
    else if (isRunning && bound.error.includes("EADDRINUSE"))
      tell({ verdict: "ok", at, text: `${name} is in use by the lb that runs with this file` });
    else tell({ verdict: "failed", at, text: bound.error.replace(`${at}: `, "") });
  }
}

async function resolveAll(config: Config, tell: (finding: Finding) => void): Promise<Map<string, readonly Address[]>> {
  const found = new Map<string, readonly Address[]>();
  await Promise.all(
    config.pools.flatMap(({ name, backends }) =>
      backends.map(async ({ endpoint }) => {
        if (endpoint.kind !== "name" || found.has(endpoint.host)) return;
        const { host } = endpoint;
        found.set(host, []);
        const [at, timeout] = [`pools.${name}`, Bun.sleep(NAME_MS).then(() => Promise.reject(new Error("no answer")))];
        try {
          const addresses = await Promise.race([lookUp(host), timeout]);
          found.set(host, addresses);
          tell({ verdict: "ok", at, text: `${host} has ${counted(addresses.length, "address")}` });
        } catch (error) {
          const why = error instanceof Error ? error.message : String(error);
          tell({ verdict: "failed", at, text: `${host} does not resolve: ${why}` });
        }
      }),
    ),
  );
  return found;
}

async function askAll(pool: PoolRecord, tell: (finding: Finding) => void): Promise<void> {
  const plan = tlsPlan(pool.config);
  const tls = plan === null ? null : new TlsClient(plan);
  const left = [...pool.backends];
  const ask = async (): Promise<void> => {
    for (let backend = left.shift(); backend !== undefined; backend = left.shift()) {
      tell(findingOf(pool, backend, await outcomeOf(backend, pool, tls)));
    }
  };
  await Promise.all(Array.from({ length: PROBES_AT_ONCE }, ask));
}

function outcomeOf(backend: BackendRecord, { config }: PoolRecord, tls: TlsClient | null): Promise<Outcome> {
  const spec = healthSpec(backend, config, tls);
  // For a pool without health checks, the check is a TCP connect.
  const asked = config.health.type === "off" ? { ...spec, exchange: connectOnly } : spec;
  return new Promise((resolve) => void new Probe(asked, { probed: resolve, probeClosed: () => undefined }));
}

function findingOf(pool: PoolRecord, { name, address }: BackendRecord, { result, why }: Outcome): Finding {
  const { type } = pool.config.health;
  const at = `pools.${pool.name}`;
  const backend = name === address ? name : `${name} (${address})`;
  const how = type === "off" ? "accepts connections" : `is up by its ${type} check`;
  if (result === "success") return { verdict: "ok", at, text: `backend ${backend} ${how}` };
  const verdict = result === "failure" ? "failed" : "warning";
  return { verdict, at, text: `backend ${backend}: ${why ?? "no answer"}` };
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "es"}`;
}
