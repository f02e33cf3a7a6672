import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { CertificateConfig, Config } from "../../src/config/schema.ts";
import { parseConfig } from "../../src/config/load.ts";
import { Expiring } from "../../src/supervisor/expiring.ts";
import { recordingLog } from "../support/recording-log.ts";

const DAY_MS = 86_400_000;

beforeEach(() => void vi.useFakeTimers({ now: Date.UTC(2026, 0, 1) }));
afterEach(() => void vi.useRealTimers());

/** A config whose admin endpoint has a certificate that expires in this many days. */
function configOf(days: number): Config {
  const text = '[listeners.web]\nbind = ":1"\npool = "app"\n[pools.app]\nbackends = ["127.0.0.1:1"]\n';
  const loaded = parseConfig(text, { file: "lb.toml", env: {} });
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
  const tls: CertificateConfig = {
    cert: "admin.pem",
    key: "admin.key",
    cert_pem: "",
    key_pem: "",
    names: [],
    key_type: "ec",
    not_after: Date.now() + days * DAY_MS,
    fingerprint: "",
  };
  return { ...loaded.config, admin: { ...loaded.config.admin, tls } };
}

test("a certificate with less than 14 days left is logged on each day after the one of the load", () => {
  const { log, said } = recordingLog();
  const expiring = new Expiring(log);
  const loadedAtMs = Date.now();
  const config = configOf(15.5);
  const left: unknown[] = [];
  for (let hour = 0; hour < 96; hour++) {
    expiring.check(config, loadedAtMs);
    vi.advanceTimersByTime(DAY_MS / 24);
  }
  for (const one of said) left.push(Object.entries(one).find(([key]) => key === "days_left")?.[1]);
  expect(left).toEqual([13, 12]);
  expect(said[0]).toMatchObject({ level: "warn", event: "certificate expires soon", cert: "admin.pem" });
});

test("the day of a load is that of the load again", () => {
  const { log, said } = recordingLog();
  const expiring = new Expiring(log);
  const config = configOf(5);
  expiring.check(config, Date.now() - DAY_MS);
  expiring.loaded();
  const loadedAtMs = Date.now();
  expiring.check(config, loadedAtMs);
  expect(said).toHaveLength(1);
  vi.advanceTimersByTime(DAY_MS);
  expiring.check(config, loadedAtMs);
  expect(said).toHaveLength(2);
});
