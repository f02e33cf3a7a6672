// A client under the test's control: connects, sends, reads until a condition, and knows how it ended.
import type { Socket } from "bun";
import { expect } from "vitest";
import { parseAddress } from "../../src/core/address.ts";
import { adoptConnecting } from "../../src/platform/bun.ts";
import { errnoName } from "../../src/platform/libc.ts";
import { beginConnect, sockaddr } from "../../src/platform/sockets.ts";

export type ClientEnd = "eof" | "reset";

export interface ConnectOptions {
  host?: string;
  /** Local address, such as another one of 127.0.0.0/8. */
  from?: string;
  /** Local port, with `from`; any free one if left out. */
  fromPort?: number;
}

export class Client {
  #socket: Socket<Client> | null = null;
  port = 0;
  host = "";
  /** The port that it has connected to. */
  readonly to: number;
  #text = "";
  #end: ClientEnd | null = null;
  /** The peer's FIN or RST; after a FIN this side stays open. */
  readonly ended: Promise<ClientEnd>;
  readonly #ended: (end: ClientEnd) => void;
  #wake = Promise.withResolvers<void>();

  /** Use `connect`. */
  constructor(to: number) {
    this.to = to;
    const { promise, resolve } = Promise.withResolvers<ClientEnd>();
    this.ended = promise;
    this.#ended = resolve;
  }

  /** All bytes that were read and not taken yet. */
  get text(): string {
    return this.#text;
  }

  /** How the peer has ended it; null = it has not. */
  get end(): ClientEnd | null {
    return this.#end;
  }

  /** "127.0.0.1:54321", in the form of the access log. */
  get address(): string {
    return this.host.includes(":") ? `[${this.host}]:${this.port}` : `${this.host}:${this.port}`;
  }

  send(text: string | Uint8Array): void {
    // A write after a reset loses its errno: the next event looks like an end.
    if ((this.#socket?.write(text) ?? -1) < 0) this.over("reset");
  }

  /** Takes the next line, without its line feed; null when the peer ends before. */
  async line(ms = 30_000): Promise<string | null> {
    await this.until(() => this.#text.includes("\n"), ms);
    const at = this.#text.indexOf("\n");
    if (at < 0) return null;
    const line = this.#text.slice(0, at);
    this.#text = this.#text.slice(at + 1);
    return line;
  }

  /** Sends one line and gets it back: the connection works. */
  async echoes(word = "ping"): Promise<boolean> {
    this.send(`${word}\n`);
    return (await this.line()) === word;
  }

  /** Waits until `isSo`, or the peer has ended; throws after `ms`. */
  async until(isSo: () => boolean, ms = 30_000): Promise<void> {
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(
      () => late.reject(new Error(`the client waited ${ms} ms, with ${JSON.stringify(this.#text)}`)),
      ms,
    );
    try {
      while (!isSo() && this.#end === null) await Promise.race([this.#wake.promise, late.promise]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** FIN; reading goes on. */
  finish(): void {
    this.#socket?.shutdown();
  }

  /** RST. */
  reset(): void {
    this.#socket?.terminate();
  }

  [Symbol.dispose](): void {
    this.#socket?.terminate();
  }

  /** The three that follow are for `connect` alone. */
  opened(socket: Socket<Client>): void {
    this.#socket = socket;
    this.port = socket.localPort;
    this.host = socket.localAddress;
  }

  heard(chunk: Uint8Array): void {
    this.#text += Buffer.from(chunk).toString("latin1");
    this.#awaken();
  }

  over(end: ClientEnd): void {
    this.#end ??= end;
    this.#ended(this.#end);
    this.#awaken();
  }

  #awaken(): void {
    this.#wake.resolve();
    this.#wake = Promise.withResolvers<void>();
  }
}

/** Resolves when the TCP connection is established; rejects with the errno's name if it fails. An immediate reset is a reset in `ended`. */
export async function connect(
  port: number,
  { host = "127.0.0.1", from, fromPort = 0 }: ConnectOptions = {},
): Promise<Client> {
  const { promise, resolve, reject } = Promise.withResolvers<Client>();
  // Bun.connect itself reports ECONNREFUSED for every failure; an adopted descriptor knows the errno.
  const fd = beginConnect(addressOf(host, port), from === undefined ? null : addressOf(from, fromPort));
  if (fd < 0) throw new Error(errnoName(-fd));
  const client = new Client(port);
  const stands = (): void => resolve(client);
  adoptConnecting(fd, client, {
    binaryType: "uint8array",
    open: (socket) => client.opened(socket),
    drain: stands,
    data: (_, chunk) => {
      stands();
      client.heard(chunk);
    },
    end: () => {
      stands();
      client.over("eof");
    },
    close: (_, error) => {
      const code = (error as { code?: string } | undefined)?.code;
      if (code === "ECONNREFUSED" || code === "ETIMEDOUT") reject(new Error(code));
      stands();
      client.over(code === undefined ? "eof" : "reset");
    },
    error: () => client.over("reset"),
    connectError: (_, error) => reject(error),
  });
  return promise;
}

/** This many at once, each of which is served. */
export async function connectMany(port: number, count: number): Promise<Client[]> {
  const clients = await Promise.all(Array.from({ length: count }, () => connect(port)));
  for (const client of clients) expect(await client.echoes()).toBe(true);
  return clients;
}

/** The first line that a new connection gets, such as its backend's name, or how it ended instead. */
export async function ask(port: number): Promise<string> {
  using client = await connect(port);
  return (await client.line()) ?? (await client.ended);
}

/** How often each of these is the answer to this many connections, one after the other. */
export async function askOften(port: number, times: number): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (let i = 0; i < times; i++) {
    const answer = await ask(port);
    counts[answer] = (counts[answer] ?? 0) + 1;
  }
  return counts;
}

/** Whether nobody listens there. */
export async function isRefused(port: number): Promise<boolean> {
  try {
    (await connect(port)).reset();
    return false;
  } catch (error) {
    return (error as Error).message === "ECONNREFUSED";
  }
}

function addressOf(host: string, port: number): Uint8Array {
  const address = parseAddress(host);
  if (address === null) throw new Error(`${host} is no address`);
  return sockaddr({ kind: "ip", address, port });
}
