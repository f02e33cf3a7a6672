// The access log of a worker: one line per connection, formatted here and sent to the supervisor in batches. The amount of unwritten
// text is bounded: when the supervisor cannot keep up, lines are dropped and counted, and no client waits.
import type { Follower } from "../messages.ts";
import { accepts } from "../observe/access-filter.ts";
import { formatAccess, lineOfRow, printableName, type AccessLine } from "../observe/access-line.ts";
import { add, claimed } from "../shared/cells.ts";
import { WORKER } from "../shared/counters.ts";
import { ROW, ROW_FLOAT, ROW_FLOATS, ROW_WORDS } from "../shared/ledger.ts";
import type { ClientFacts, Ended, Host } from "./session.ts";

/** Characters that go to the supervisor in one message, at most about. */
const BATCH_CHARACTERS = 64 * 1024;
/** Maximum number of characters per worker that are not written yet; more are dropped. */
export const LOG_PENDING_MAX = 4 * 1024 * 1024;

/** Characters for one follower between two ticks of the clock, at most about; more lines are lost to it. */
export const FOLLOWED_CHARACTERS_MAX = 256 * 1024;

/** What there is for a follower since the last tick. */
interface Followed {
  follower: Follower;
  text: string;
  lost: number;
}

type SendFollowed = (follower: number, text: string, lost: number) => void;

/** What the log needs to know of a session that is not in its row of the ledger. */
interface LoggedSession {
  readonly row: number;
  readonly listener: { readonly plan: { readonly name: string } };
  readonly pool: { readonly plan: { readonly name: string } } | null;
  readonly backend: { readonly name: string } | null;
  readonly facts: ClientFacts | null;
  readonly connectMs: number;
}

export class AccessLog {
  readonly #host: Pick<Host, "index" | "words" | "floats" | "counters">;
  /** One Int32 cell: characters sent that the supervisor has not written yet. */
  readonly #pending: Int32Array;
  readonly #send: (text: string, lines: number) => void;
  format: "text" | "json" | "off" = "off";
  /** Connections without a byte are logged too. */
  debug = false;
  #batch = "";
  #lines = 0;
  #followed: Followed[] = [];
  readonly #sendFollowed: SendFollowed;

  constructor(
    host: Pick<Host, "index" | "words" | "floats" | "counters">,
    pending: Int32Array,
    { send, sendFollowed }: { send: (text: string, lines: number) => void; sendFollowed: SendFollowed },
  ) {
    this.#host = host;
    this.#pending = pending;
    this.#send = send;
    this.#sendFollowed = sendFollowed;
  }

  /** Who follows the log from now on. */
  follow(followers: readonly Follower[]): void {
    this.#followed = followers.map(
      (follower) => this.#followed.find((old) => old.follower.id === follower.id) ?? { follower, text: "", lost: 0 },
    );
  }

  /** The line of a session that has ended; its row of the ledger must still be there. */
  write(session: LoggedSession, { end, by, error }: Ended): void {
    if (this.format === "off" && this.#followed.length === 0) return;
    const host = this.#host;
    const { floats, words } = host;
    const { facts, row } = session;
    const floatsAt = row * ROW_FLOATS;
    const bytes = floats[floatsAt + ROW_FLOAT.bytesIn]! + floats[floatsAt + ROW_FLOAT.bytesOut]!;
    // The probes of a balancer in front of lb connect and send nothing: they would fill the log.
    const waited = words[row * ROW_WORDS + ROW.queueMs]! > 0;
    if (bytes === 0 && !waited && !this.debug && (end === "eof" || (end === "reset" && by === "client"))) return;
    const line = lineOfRow(host, row, {
      listener: session.listener.plan.name,
      sni: facts === null ? "" : facts.sni,
      tls: facts === null ? "" : facts.tlsVersion,
      clientCert: facts === null || facts.certificate === null ? "" : printableName(facts.certificate.name),
      pool: session.pool?.plan.name ?? "",
      backend: session.backend?.name ?? "",
      connectMs: session.connectMs,
      worker: host.index,
      end,
      endBy: by,
      error,
    });
    if (this.#followed.length > 0) this.#writeFollowed(line);
    if (this.format === "off") return;
    this.#batch += `${formatAccess(this.format, line)}\n`;
    this.#lines++;
    if (this.#batch.length >= BATCH_CHARACTERS) this.#flushBatch();
  }

  #writeFollowed(line: AccessLine): void {
    for (const followed of this.#followed) {
      const { format, filter } = followed.follower;
      if (!accepts(filter, line)) continue;
      if (followed.text.length >= FOLLOWED_CHARACTERS_MAX) followed.lost++;
      else followed.text += `${formatAccess(format, line)}\n`;
    }
  }

  /** Sends the collected lines. */
  flush(): void {
    for (const followed of this.#followed) {
      if (followed.text === "") continue;
      this.#sendFollowed(followed.follower.id, followed.text, followed.lost);
      followed.text = "";
      followed.lost = 0;
    }
    this.#flushBatch();
  }

  #flushBatch(): void {
    if (this.#lines === 0) return;
    if (claimed(this.#pending) > LOG_PENDING_MAX) {
      this.#host.counters[WORKER.logLinesLost]! += this.#lines;
    } else {
      add(this.#pending, this.#batch.length);
      this.#send(this.#batch, this.#lines);
    }
    this.#batch = "";
    this.#lines = 0;
  }
}
