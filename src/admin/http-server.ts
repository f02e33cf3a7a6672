// The HTTP server under the admin endpoint: bounded requests, responses that are whole or a stream, and no more connections than
// their share of the descriptors. By node:http, because Bun.serve has no limit on connections.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { ListenOptions, Socket } from "node:net";
import type { ReadableStreamDefaultReader } from "node:stream/web";

export interface HttpOptions {
  /** Connections at once. Beyond that a new one takes the place of the one that has been without a request for longest. */
  connectionsMax: number;
  bodyBytesMax: number;
  /** Of a connection without a request. */
  idleMs: number;
  answer: (request: HttpRequest) => Promise<HttpResponse>;
}

export interface HttpRequest {
  method: string;
  /** As it was sent: percent-encoded, without the query. */
  path: string;
  /** Without the question mark. */
  query: string;
  headers: Headers;
  /** null = larger than the maximum. */
  body: Uint8Array | null;
  /** The address of the other side; "" on a unix socket. */
  peer: string;
}

export interface HttpResponse {
  status: number;
  headers: Record<string, string>;
  /** A stream is cancelled when the client is gone, and at `stop`. */
  content: string | ReadableStream<Uint8Array>;
}

export interface HttpServer {
  /** 0 at a unix socket. */
  readonly port: number;
  /** Responses that are streams, at this moment. */
  streams(): number;
  /** Accepts no more. Responses under way are finished, and streams end. */
  stop(): void;
}

/** A request must be whole by then. */
const REQUEST_MS = 10_000;
/** A client that takes nothing of its response for so long is dropped. */
const STALLED_MS = 20_000;

/** The server once it listens, or the code of the error, such as EADDRINUSE. */
export function serveHttp(where: ListenOptions, options: HttpOptions): Promise<HttpServer | string> {
  const server = createServer({
    keepAliveTimeout: options.idleMs,
    headersTimeout: REQUEST_MS,
    requestTimeout: REQUEST_MS,
  });
  const connections = new Connections(options.connectionsMax);
  const streams = new Set<Stream>();
  server.on("connection", (socket: Socket) => connections.admit(socket));
  server.on("request", (incoming: IncomingMessage, outgoing: ServerResponse) => {
    connections.asks(incoming.socket, outgoing);
    void exchange(incoming, outgoing, { options, streams });
  });
  const { promise, resolve } = Promise.withResolvers<HttpServer | string>();
  server.on("error", (error) => resolve("code" in error ? String(error.code) : "an unknown error"));
  server.once("listening", () => {
    const address = server.address();
    resolve({
      port: address === null || typeof address === "string" ? 0 : address.port,
      streams: () => streams.size,
      stop: () => {
        server.close();
        server.closeIdleConnections();
        for (const stream of streams) stream.end();
      },
    });
  });
  server.listen(where);
  return promise;
}

/** The open connections, the one that has waited longest first. */
class Connections {
  readonly #max: number;
  readonly #idle = new Set<Socket>();
  readonly #busy = new Set<Socket>();

  constructor(max: number) {
    this.#max = max;
  }

  admit(socket: Socket): void {
    if (this.#idle.size + this.#busy.size >= this.#max) {
      const [oldest] = this.#idle;
      if (oldest === undefined) {
        socket.destroy();
        return;
      }
      this.#idle.delete(oldest);
      oldest.destroy();
    }
    this.#idle.add(socket);
    socket.on("error", () => undefined);
    socket.once("close", () => {
      this.#idle.delete(socket);
      this.#busy.delete(socket);
    });
  }

  asks(socket: Socket, outgoing: ServerResponse): void {
    if (!this.#idle.delete(socket)) return;
    this.#busy.add(socket);
    outgoing.once("close", () => {
      if (this.#busy.delete(socket) && !socket.destroyed) this.#idle.add(socket);
    });
  }
}

interface Context {
  options: HttpOptions;
  streams: Set<Stream>;
}

async function exchange(incoming: IncomingMessage, outgoing: ServerResponse, { options, streams }: Context) {
  const body = await bodyOf(incoming, options.bodyBytesMax);
  const { status, headers, content } = await options.answer(requestOf(incoming, body));
  // What was not read of the body would be taken for the next request.
  const connection = body === null ? { Connection: "close" } : {};
  if (typeof content === "string") {
    const bytes = Buffer.from(content);
    outgoing.writeHead(status, { ...headers, ...connection, "Content-Length": String(bytes.length) });
    dropIfStalled(outgoing);
    outgoing.end(incoming.method === "HEAD" ? undefined : bytes);
    return;
  }
  outgoing.writeHead(status, { ...headers, ...connection });
  if (incoming.method === "HEAD") {
    outgoing.end();
    await content.cancel();
    return;
  }
  const stream = new Stream(outgoing, content);
  streams.add(stream);
  await stream.run();
  streams.delete(stream);
}

/** Drops the client unless it has taken the whole response in time. */
function dropIfStalled(outgoing: ServerResponse): void {
  const timer = setTimeout(() => outgoing.destroy(), STALLED_MS);
  outgoing.once("close", () => clearTimeout(timer));
}

/** A response that is a stream. The next part is asked for when the client has taken the one before. */
class Stream {
  readonly #outgoing: ServerResponse;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;

  constructor(outgoing: ServerResponse, content: ReadableStream<Uint8Array>) {
    this.#outgoing = outgoing;
    this.#reader = content.getReader();
    outgoing.once("close", () => this.end());
  }

  async run(): Promise<void> {
    const outgoing = this.#outgoing;
    outgoing.flushHeaders();
    try {
      for (;;) {
        const { done, value } = await this.#reader.read();
        if (done || outgoing.destroyed) break;
        if (!outgoing.write(value)) await taken(outgoing);
      }
      outgoing.end();
    } catch {
      // The source failed: a response that is cut short must not look whole.
      outgoing.destroy();
    }
  }

  /** Ends the source; what it has given before is still sent. */
  end(): void {
    this.#reader.cancel().catch(() => undefined);
  }
}

/** Until the client has taken what was written, or is gone. */
function taken(outgoing: ServerResponse): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(() => outgoing.destroy(), STALLED_MS);
  const settle = (): void => {
    clearTimeout(timer);
    outgoing.off("drain", settle).off("close", settle);
    resolve();
  };
  outgoing.once("drain", settle).once("close", settle);
  return promise;
}

/** Null = it is longer than that. */
async function bodyOf(incoming: IncomingMessage, bytesMax: number): Promise<Uint8Array | null> {
  if (Number(incoming.headers["content-length"] ?? 0) > bytesMax) return null;
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of incoming as AsyncIterable<Uint8Array>) {
    bytes += chunk.length;
    if (bytes > bytesMax) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function requestOf(incoming: IncomingMessage, body: Uint8Array | null): HttpRequest {
  const headers = new Headers();
  const { rawHeaders, method = "GET" } = incoming;
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) headers.append(rawHeaders[i]!, rawHeaders[i + 1]!);
  // RFC 9112 section 3.2: the target may be a whole URL, or no path at all.
  const target = (incoming.url ?? "").replace(/^[a-z]+:\/\/[^/?#]*/i, "").replace(/#.*$/s, "");
  const mark = target.indexOf("?");
  const path = mark < 0 ? target : target.slice(0, mark);
  const query = mark < 0 ? "" : target.slice(mark + 1);
  const peer = incoming.socket.remoteAddress ?? "";
  return { method, path: path.startsWith("/") ? path : `/${path}`, query, headers, body, peer };
}
