// Health check options that contradict each other or have no effect.
import { quote } from "./wording.ts";
import type { Finding, Subject } from "./finding.ts";
import type { KeyPath } from "./problem.ts";
import type { FilePool, HealthStep } from "./schema.ts";

type Health = FilePool["health"];
type Type = Health["type"];
type Report = (finding: Finding) => void;

const CHECKED: readonly Type[] = ["tcp", "tls", "http", "exchange", "redis", "postgres", "mysql", "smtp", "ssh"];

/** The types of checks that `tls` applies to. */
export const TYPES_WITH_TLS: readonly Type[] = ["http", "exchange", "redis", "smtp"];

/** Options of some types only; `role` is reported below. */
const TYPES_OF: readonly (readonly [key: keyof Health, types: readonly Type[], unset: unknown])[] = [
  ["method", ["http"], "GET"],
  ["path", ["http"], "/"],
  ["host", ["http"], ""],
  ["status", ["http"], "200-399"],
  ["body", ["http"], ""],
  ["tls", TYPES_WITH_TLS, false],
  ["send", ["exchange"], ""],
  ["expect", ["exchange"], ""],
  ["user", ["postgres", "mysql"], ""],
  ["port", CHECKED, 0],
  ["initial", CHECKED, "up"],
  ["fast_interval", CHECKED, 0],
];

export function checkHealth({ config, isSound }: Subject, report: Report): void {
  for (const { name, health, backends } of config.pools) {
    const path = ["pools", name, "health"];
    if (!isSound(path)) continue;
    if (isSound(["pools", name, "backends"])) checkPorts(health, backends, path, report);
    for (const [key, types, unset] of TYPES_OF) {
      if (types.includes(health.type) || health[key] === unset) continue;
      report({ path: [...path, key], message: `has no effect: type is ${quote(health.type)}`, warning: true });
    }
    if (health.steps.length > 0 && health.type !== "exchange") {
      report({ path: [...path, "steps"], message: `has no effect: type is ${quote(health.type)}`, warning: true });
    }
    if (health.role !== "" && health.type !== "redis") {
      // Not a warning: writes would go to replicas.
      const message = `only type = "redis" knows roles, found type = ${quote(health.type)}`;
      const hint = 'for PostgreSQL with Patroni: type = "http", port = 8008, path = "/primary" or "/replica"';
      report({ path: [...path, "role"], message, ...(health.type === "postgres" && { hint }) });
    }
    if (health.type === "mysql" && health.user === "") {
      const message =
        "without user the server logs each check as an aborted connection, and may block lb after max_connect_errors of them";
      const hint = 'user = "lb", after CREATE USER lb, which needs neither a password nor a privilege';
      report({ path: [...path, "type"], message, hint, warning: true });
    }
    if (health.type === "exchange") checkSteps(health, path, report);
    if (health.type === "http" && health.method === "HEAD" && health.body !== "") {
      report({ path: [...path, "body"], message: 'cannot be found: the response to method = "HEAD" has no body' });
    }
  }
}

/** Ports of a pool whose backends have none. */
function checkPorts(health: Health, backends: FilePool["backends"], path: KeyPath, report: Report): void {
  if (backends.some(({ address }) => "port" in address)) return;
  for (const key of ["port", "agent_port"] as const) {
    if (health[key] === 0) continue;
    report({ path: [...path, key], message: "has no effect: every backend is a Unix socket", warning: true });
  }
}

function checkSteps({ steps, send, expect }: Health, path: KeyPath, report: Report): void {
  if (steps.length === 0 && send === "" && expect === "") {
    report({ path, message: 'type = "exchange" needs steps, or send and expect' });
  }
  if (steps.length > 0 && (send !== "" || expect !== "")) {
    const key = send === "" ? "expect" : "send";
    report({ path: [...path, key], message: "cannot be used together with steps: make it a step" });
  }
  for (const [index, step] of steps.entries()) {
    const at = [...path, "steps", index];
    const { sends, expects } = usedIn(step);
    for (const both of [sends, expects]) {
      if (both.length > 1)
        report({ path: at, message: `has ${both.join(" and ")}, and only one can be used: make it two steps` });
    }
    if (sends.length + expects.length === 0) report({ path: at, message: "neither sends nor expects anything" });
  }
  if (expect === "" && steps.every((step) => usedIn(step).expects.length === 0)) {
    report({ path, message: "expects no answer, so every backend that can be connected to is up", warning: true });
  }
}

function usedIn(step: HealthStep): { sends: string[]; expects: string[] } {
  const sends = (["send", "send_hex"] as const).filter((key) => step[key] !== "");
  const expects = (["expect", "expect_hex", "expect_regex"] as const).filter((key) => step[key] !== "");
  return { sends, expects };
}
