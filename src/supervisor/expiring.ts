// Logs certificates that expire soon, daily. The load of a config logs them for the first day.
import type { CertificateConfig, Config } from "../config/schema.ts";
import { expiryWarningMs } from "../config/tls.ts";
import type { Fields, Log } from "./log.ts";
import { daysLeft } from "./status.ts";

const DAY_MS = 86_400_000;

export class Expiring {
  readonly #log: Pick<Log, "warn">;
  /** Number of days since the load of the config on which expiring certificates were logged. */
  #daysLogged = 0;

  constructor(log: Pick<Log, "warn">) {
    this.#log = log;
  }

  /** Call it when another config is active. */
  loaded(): void {
    this.#daysLogged = 0;
  }

  /** Call it often: it logs when a day has passed since the last time. */
  check({ listeners, admin }: Config, loadedAtMs: number): void {
    if (Date.now() < loadedAtMs + (this.#daysLogged + 1) * DAY_MS) return;
    this.#daysLogged++;
    for (const { name, tls } of listeners)
      for (const certificate of tls?.certificates ?? []) this.#warn({ listener: name }, certificate);
    if (admin.tls !== null) this.#warn({}, admin.tls);
  }

  #warn(fields: Fields, { cert, not_after }: CertificateConfig): void {
    if (not_after - Date.now() >= expiryWarningMs) return;
    this.#log.warn("certificate expires soon", { ...fields, cert, days_left: Math.floor(daysLeft(not_after)) });
  }
}
