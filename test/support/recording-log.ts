// A log that keeps its messages, for tests of code that writes messages.
import type { Fields, Logger } from "../../src/supervisor/log.ts";

export type Said = Fields & { level: string; event: string };

export function recordingLog(): { log: Logger; said: Said[] } {
  const said: Said[] = [];
  const say =
    (level: string) =>
    (event: string, fields: Fields = {}): void =>
      void said.push({ level, event, ...fields });
  const log = { debug: say("debug"), info: say("info"), warn: say("warn"), error: say("error") };
  return { log, said };
}
