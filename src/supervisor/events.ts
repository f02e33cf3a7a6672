// Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html) for GET /api/events: a snapshot each second, and each
// log message at once. A snapshot is taken and serialized once for all subscribers, and not at all if there are none.
import { Feed } from "../admin/feed.ts";
import type { Fields, Level } from "./log.ts";

const SNAPSHOT_EVERY_MS = 1000;
/** Interval of comments that keep the connection open when there are no snapshots. */
const HEARTBEAT_EVERY_MS = 15_000;
/** Maximum number of unread bytes for one subscriber. A subscriber with more is dropped: it reads too slowly to be up to date. */
export const SUBSCRIBER_BYTES_MAX = 1024 * 1024;
/** How long a browser waits before it connects again. */
const BEGIN = Buffer.from("retry: 2000\n\n");
const HEARTBEAT = Buffer.from(": alive\n\n");

/** Messages that are kept for those who subscribe later. */
const RECENT_MAX = 100;

export interface Wanted {
  snapshots: boolean;
  /** The recent messages too, the oldest first. */
  recent: boolean;
}

interface Subscriber {
  feed: Feed;
  wantsSnapshots: boolean;
}

export class Events {
  readonly #snapshot: () => unknown;
  readonly #subscribers = new Set<Subscriber>();
  readonly #recent: Uint8Array[] = [];
  #timer: ReturnType<typeof setInterval> | null = null;
  #ticks = 0;

  /** `snapshot` returns a new snapshot. */
  constructor(snapshot: () => unknown) {
    this.#snapshot = snapshot;
  }

  /** The events from now on until the reader closes the stream; the first is a snapshot, if snapshots are wanted. */
  subscribe({ snapshots, recent }: Wanted): ReadableStream<Uint8Array> {
    const feed = new Feed(SUBSCRIBER_BYTES_MAX, () => this.#remove(subscriber));
    const subscriber = { feed, wantsSnapshots: snapshots };
    this.#subscribers.add(subscriber);
    this.#timer ??= setInterval(() => this.#tick(), SNAPSHOT_EVERY_MS);
    feed.push(BEGIN);
    if (snapshots) feed.push(this.#snapshotEvent());
    if (recent) for (const bytes of this.#recent) feed.push(bytes);
    return feed.stream;
  }

  /** Sends a message of the log. */
  message(level: Level, event: string, fields: Fields): void {
    const change = { time: new Date().toISOString(), level, event, ...fields };
    const bytes = Buffer.from(`event: change\ndata: ${JSON.stringify(change)}\n\n`);
    this.#recent.push(bytes);
    if (this.#recent.length > RECENT_MAX) this.#recent.shift();
    for (const subscriber of this.#subscribers) this.#send(subscriber, bytes);
  }

  #tick(): void {
    this.#ticks++;
    const isHeartbeat = this.#ticks % (HEARTBEAT_EVERY_MS / SNAPSHOT_EVERY_MS) === 0;
    let snapshot: Uint8Array | null = null;
    for (const subscriber of this.#subscribers) {
      if (subscriber.wantsSnapshots) this.#send(subscriber, (snapshot ??= this.#snapshotEvent()));
      else if (isHeartbeat) this.#send(subscriber, HEARTBEAT);
    }
  }

  #snapshotEvent(): Uint8Array {
    return Buffer.from(`event: snapshot\ndata: ${JSON.stringify(this.#snapshot())}\n\n`);
  }

  #send({ feed }: Subscriber, bytes: Uint8Array): void {
    if (!feed.push(bytes)) feed.fail("the subscriber reads too slowly");
  }

  #remove(subscriber: Subscriber): void {
    this.#subscribers.delete(subscriber);
    if (this.#subscribers.size > 0 || this.#timer === null) return;
    clearInterval(this.#timer);
    this.#timer = null;
  }
}
