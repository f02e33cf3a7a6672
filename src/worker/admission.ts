// Admission of sessions: address lists, caps and rates, and the places that are claimed for a session. The claims of a row are noted in
// the ledger and released only here.
import { DRY_RUN_LIMITS } from "../core/dry-run.ts";
import type { End } from "../core/ends.ts";
import { isAllowed, isDenied } from "../policy/address-lists.ts";
import { claim, giveBack } from "../shared/cells.ts";
import { CLIENT_OVER_RATE, CLIENT_TABLE_FULL } from "../shared/clients.ts";
import { LISTENER } from "../shared/counters.ts";
import { CLAIM, ROW, ROW_WORDS } from "../shared/ledger.ts";
import type { Listener } from "./listener.ts";
import type { Host, Session } from "./session.ts";

/** Deny and allow lists, for the client whose address is in the row. Null = admitted. Hot path. */
export function checkAddress({ words }: Host, { plan }: Listener, row: number): End | null {
  const at = row * ROW_WORDS + ROW.address;
  return isDenied(plan, words, at) || !isAllowed(plan, words, at) ? "denied" : null;
}

/** Claims a place of the process and one of the listener. Null = both were claimed. Hot path. */
export function claimPlaces(host: Host, { plan }: Listener, row: number): End | null {
  const { words } = host;
  const at = row * ROW_WORDS;
  if (!claim(host.open, host.maxConnections)) {
    host.overBudget();
    return "process_full";
  }
  words[at]! |= CLAIM.process;
  if (!claim(plan.open, plan.maxConnections)) return "listener_full";
  words[at]! |= CLAIM.listener;
  return null;
}

/** The rate and the cap of the client whose address is in the row, at `nowMs` on platform's monotonicMs(). Null = admitted. Hot path. */
export function admitClient(host: Host, listener: Listener, row: number, nowMs: number): End | null {
  const { clients, limits } = listener;
  if (clients === null || limits === null) return null;
  const { words } = host;
  const at = row * ROW_WORDS;
  const client = listener.prefix.of(words, at + ROW.address);
  const entry = clients.claim(client.w0, client.w1, client.w2, client.w3, limits, nowMs * 1e6);
  words[at + ROW.clientEntry] = entry;
  if (clients.claimed) words[at]! |= CLAIM.client;
  if (clients.dryRun !== 0) noteDryRun(host, listener, row, clients.dryRun);
  if (entry >= 0 || (entry === CLIENT_TABLE_FULL && !listener.needsEntry)) return null;
  return entry === CLIENT_OVER_RATE ? "rate_limited" : "client_full";
}

/** These limits would have acted on the session; each counts once. */
export function noteDryRun({ words }: Host, { counters }: Listener, row: number, limits: number): void {
  const at = row * ROW_WORDS + ROW.dryRun;
  const fresh = limits & ~words[at]!;
  words[at]! |= fresh;
  for (let i = 0; i < DRY_RUN_LIMITS.length; i++) if (fresh & (1 << i)) counters[LISTENER.dryRun + i]!++;
}

// The functions below remove a claim from the row before they release its place, so that the supervisor never releases a place a second
// time.

/** The place at the session's backend, where one was claimed. */
export function releaseBackend({ host: { words }, row, pool, backend }: Session): void {
  const at = row * ROW_WORDS;
  if (pool === null || backend === null || (words[at]! & CLAIM.backend) === 0) return;
  words[at]! &= ~CLAIM.backend;
  pool.release(backend);
}

/** The place in the queue of the session's pool, if it waits. Stores the wait for the log. */
export function leaveQueue(session: Session): void {
  const { host, row, pool } = session;
  const { words } = host;
  const at = row * ROW_WORDS;
  if (pool === null || pool.queue === null || (words[at]! & CLAIM.queue) === 0) return;
  words[at]! &= ~CLAIM.queue;
  words[at + ROW.queueMs]! += Math.max(1, Math.ceil(pool.queue.leave(session)));
}

/** Everything that the session has claimed. */
export function releaseAll(session: Session): void {
  const { host, listener, row } = session;
  const { words } = host;
  const at = row * ROW_WORDS;
  releaseBackend(session);
  const claims = words[at]!;
  if (claims & CLAIM.client) {
    words[at]! &= ~CLAIM.client;
    listener.clients?.release(words[at + ROW.clientEntry]!);
  }
  if (claims & CLAIM.listener) {
    words[at]! &= ~CLAIM.listener;
    giveBack(listener.plan.open);
  }
  if (claims & CLAIM.process) {
    words[at]! &= ~CLAIM.process;
    giveBack(host.open);
  }
}
