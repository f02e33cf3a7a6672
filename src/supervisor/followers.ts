// The followers of the access log (GET /api/logs). The workers filter and format the lines. Lines that a follower does not read in time are
// dropped, counted and reported to it.
import { Feed } from "../admin/feed.ts";
import type { AccessFilter, Follower } from "../messages.ts";
import { accepts } from "../observe/access-filter.ts";
import { formatAccess, type AccessLine } from "../observe/access-line.ts";

/** Maximum number of unread bytes for one reader. */
export const FOLLOWER_BYTES_MAX = 1024 * 1024;

/** Takes the lines of one follower. */
export interface LineSink {
  /** Whole lines; `lost` = lines before them that the worker has dropped. */
  take(text: string, lost: number): void;
}

interface Following {
  follower: Follower;
  sink: LineSink;
}

export class Followers {
  readonly #following = new Map<number, Following>();
  /** Called when a follower comes or goes. */
  readonly #changed: (followers: Follower[]) => void;
  #lastId = 0;

  constructor(changed: (followers: Follower[]) => void) {
    this.#changed = changed;
  }

  /** The followers in the form that workers' plans have. */
  list(): Follower[] {
    return [...this.#following.values()].map(({ follower }) => follower);
  }

  /** The lines from now on, until the reader closes the stream. */
  follow(format: Follower["format"], filter: AccessFilter): ReadableStream<Uint8Array> {
    const sink = new FeedSink(format, () => stop());
    const stop = this.add(format, filter, sink);
    return sink.feed.stream;
  }

  /** The same for a sink; the result ends it. */
  add(format: Follower["format"], filter: AccessFilter, sink: LineSink): () => void {
    const id = ++this.#lastId;
    this.#following.set(id, { follower: { id, format, filter }, sink });
    this.#changed(this.list());
    return () => {
      this.#following.delete(id);
      this.#changed(this.list());
    };
  }

  /** Whole lines for one follower. `lost` = lines that its worker has dropped. */
  take(id: number, text: string, lost: number): void {
    this.#following.get(id)?.sink.take(text, lost);
  }

  /** The line of a connection that died with its worker. */
  line(line: AccessLine): void {
    for (const { follower, sink } of this.#following.values()) {
      if (accepts(follower.filter, line)) sink.take(`${formatAccess(follower.format, line)}\n`, 0);
    }
  }
}

/** Lines for a reader of the admin API; the text has the number of dropped ones. */
class FeedSink implements LineSink {
  readonly feed: Feed;
  readonly #format: Follower["format"];
  #lost = 0;

  constructor(format: Follower["format"], closed: () => void) {
    this.#format = format;
    this.feed = new Feed(FOLLOWER_BYTES_MAX, closed);
  }

  take(text: string, lost: number): void {
    if (this.feed.push(Buffer.from(this.#lossText() + text))) this.#lost = 0;
    else this.#lost += text.split("\n").length - 1;
    this.#lost += lost;
  }

  /** A line that reports the number of dropped lines before the next one; "" = none. */
  #lossText(): string {
    if (this.#lost === 0) return "";
    return this.#format === "json" ? `{"lines_lost":${this.#lost}}\n` : `lines_lost=${this.#lost}\n`;
  }
}
