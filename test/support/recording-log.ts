// A log that keeps what it is told, for tests of whoever tells it.
import type { Fields, Log } from "../../src/supervisor/log.ts";

export type Said = Fields & { level: string; event: string };

export function recordingLog(): { log: Log; said: Said[] } {
  const said: Said[] = [];
  const say =
    (level: string) =>
    (event: string, fields: Fields = {}): void =>
      void said.push({ level, event, ...fields });
  const log = { debug: say("debug"), info: say("info"), warn: say("warn"), error: say("error") } as unknown as Log;
  return { log, said };
}
