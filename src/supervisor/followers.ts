// The followers of the access log (GET /api/logs). The workers filter and format the lines. Lines that a follower does not read in time are
// dropped, counted and reported to it.
import { Feed } from "../admin/feed.ts";
import type { AccessFilter, Follower } from "../messages.ts";
import { accepts } from "../observe/access-filter.ts";
import { formatAccess, type AccessLine } from "../observe/access-line.ts";

/** Maximum number of unread bytes for one follower. */
export const FOLLOWER_BYTES_MAX = 1024 * 1024;

interface Following {
  follower: Follower;
  feed: Feed;
  lost: number;
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
    const id = ++this.#lastId;
    const feed = new Feed(FOLLOWER_BYTES_MAX, () => {
      this.#following.delete(id);
      this.#changed(this.list());
    });
    this.#following.set(id, { follower: { id, format, filter }, feed, lost: 0 });
    this.#changed(this.list());
    return feed.stream;
  }

  /** Whole lines for one follower. `lost` = lines that its worker has dropped. */
  take(id: number, text: string, lost: number): void {
    const following = this.#following.get(id);
    if (following === undefined) return;
    const told = lossText(following);
    if (following.feed.push(Buffer.from(told + text))) following.lost = 0;
    else following.lost += text.split("\n").length - 1;
    following.lost += lost;
  }

  /** The line of a connection that died with its worker. */
  line(line: AccessLine): void {
    for (const { follower } of this.#following.values()) {
      if (accepts(follower.filter, line)) this.take(follower.id, `${formatAccess(follower.format, line)}\n`, 0);
    }
  }
}

/** A line that reports the number of dropped lines before the next one; "" = none. */
function lossText({ follower, lost }: Following): string {
  if (lost === 0) return "";
  return follower.format === "json" ? `{"lines_lost":${lost}}\n` : `lines_lost=${lost}\n`;
}
