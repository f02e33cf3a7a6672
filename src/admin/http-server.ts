// The HTTP server of the admin endpoint: bounded requests, responses that are complete or streamed, and a limit on connections, which is
// their share of the descriptors. It uses node:http, because Bun.serve has no limit on connections.
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createNetServer, type ListenOptions, type Socket } from "node:net";
import type { ReadableStreamDefaultReader } from "node:stream/web";
import { TLSSocket, type SecureContext } from "node:tls";
import { RequestBudget, type BudgetOptions } from "./request-budget.ts";

export interface HttpOptions {
  /** Maximum number of connections. Beyond it, a new connection replaces the one that has been idle longest. */
  connectionsMax: number;
  bodyBytesMax: number;
  times: Times;
  /** What requests may take of the CPU. */
  budget: BudgetOptions;
  /** null = plain HTTP. */
  tls: SecureContext | null;
  answer: (request: HttpRequest) => Promise<HttpResponse>;
}

export interface Times {
  /** From accept to the end of the first request's head, and from there to the end of its body. */
  requestMs: number;
  /** Time limit of an idle connection after a response. */
  idleMs: number;
  /** A client that reads nothing of its response for this long is dropped. */
  stalledMs: number;
}

export interface HttpRequest {
  method: string;
  /** As sent: percent-encoded, without the query. */
  path: string;
  /** Without the question mark. */
  query: string;
  headers: Headers;
  /** null = larger than the maximum. */
  body: Uint8Array | null;
  /** The peer's address; "" on a unix socket. */
  peer: string;
}

export interface HttpResponse {
  status: number;
  headers: Record<string, string>;
  /** A stream is cancelled when the client disconnects and at `stop`. */
  content: string | ReadableStream<Uint8Array>;
}

export interface HttpServer {
  /** 0 for a unix socket. */
  readonly port: number;
  /** Number of streams that are open now. */
  streams(): number;
  /** The certificate for connections from now on; null = plain HTTP. */
  setTls(context: SecureContext | null): void;
  /** Stops accepting. Responses in flight are completed, streams end. */
  stop(): void;
}

/** The server, once it listens, or the code of the error, such as EADDRINUSE. */
export function serveHttp(where: ListenOptions, options: HttpOptions): Promise<HttpServer | string> {
  // It never listens: connections are handed to it, so that TLS can be turned on and certificates replaced under the same socket.
  const http = createHttpServer();
  const connections = new Connections(options);
  const streams = new Set<Stream>();
  const budget = new RequestBudget(options.budget);
  let tls = options.tls;
  http.on("request", (incoming: IncomingMessage, outgoing: ServerResponse) => {
    void exchange(incoming, outgoing, { options, streams, connections, budget });
  });
  http.on("clientError", (error: NodeJS.ErrnoException, socket: Socket) => refuseBadHead(socket, error.code));
  // A client may send its FIN with the request and still read the response.
  const server = createNetServer({ allowHalfOpen: true }, (socket) => {
    if (!connections.admit(socket)) return;
    if (tls === null) http.emit("connection", socket);
    else adoptTls(socket, tls, (secure) => http.emit("connection", secure));
  });
  const { promise, resolve } = Promise.withResolvers<HttpServer | string>();
  server.on("error", (error) => resolve("code" in error ? String(error.code) : "an unknown error"));
  server.once("listening", () => {
    const address = server.address();
    resolve({
      port: address === null || typeof address === "string" ? 0 : address.port,
      streams: () => streams.size,
      setTls: (context) => {
        tls = context;
      },
      stop: () => {
        server.close();
        connections.stop();
        for (const stream of streams) stream.end();
      },
    });
  });
  server.listen(where);
  return promise;
}

/** The accepted socket by the TLS socket on it. */
const ACCEPTED = new WeakMap<Socket, Socket>();

/** Makes an accepted socket the server side of a TLS connection. */
function adoptTls(socket: Socket, secureContext: SecureContext, then: (secure: TLSSocket) => void): void {
  const secure = new TLSSocket(socket, { isServer: true, secureContext });
  ACCEPTED.set(secure, socket);
  secure.on("error", () => socket.destroy());
  secure.once("secure", () => then(secure));
}

/** Answers requests that are not HTTP or whose head is too large. */
function refuseBadHead(socket: Socket, code = ""): void {
  const status = code === "HPE_HEADER_OVERFLOW" ? "431 Request Header Fields Too Large" : "400 Bad Request";
  if (socket.writable) socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
  setTimeout(() => socket.destroy(), LINGER_MS);
}

/** For a client that still sends when it is refused: an immediate close would reset the connection before the client reads the response. */
const LINGER_MS = 1000;

/** The open connections. Idle ones have a deadline, and the one that has been idle longest is evicted first. */
class Connections {
  readonly #options: HttpOptions;
  readonly #idle = new Map<Socket, ReturnType<typeof setTimeout>>();
  readonly #busy = new Set<Socket>();
  stopping = false;

  constructor(options: HttpOptions) {
    this.#options = options;
  }

  /** False = the limit is reached. */
  admit(socket: Socket): boolean {
    socket.on("error", () => undefined);
    if (this.#idle.size + this.#busy.size >= this.#options.connectionsMax) {
      const [oldest] = this.#idle.keys();
      (oldest ?? socket).destroy();
      if (oldest === undefined) return false;
      this.#forget(oldest);
    }
    this.#wait(socket, this.#options.times.requestMs);
    socket.once("close", () => this.#forget(socket));
    return true;
  }

  /** The request is complete; `outgoing` is its response. */
  asks(incoming: Socket, outgoing: ServerResponse): void {
    const socket = ACCEPTED.get(incoming) ?? incoming;
    if (!this.#idle.has(socket)) return;
    this.#forget(socket);
    this.#busy.add(socket);
    outgoing.once("close", () => {
      if (!this.#busy.delete(socket) || socket.destroyed) return;
      if (this.stopping) incoming.destroySoon();
      this.#wait(socket, this.#options.times.idleMs);
    });
  }

  stop(): void {
    this.stopping = true;
    for (const socket of this.#idle.keys()) socket.destroy();
  }

  #wait(socket: Socket, ms: number): void {
    this.#idle.set(
      socket,
      setTimeout(() => socket.destroy(), ms),
    );
  }

  #forget(socket: Socket): void {
    clearTimeout(this.#idle.get(socket));
    this.#idle.delete(socket);
    this.#busy.delete(socket);
  }
}

/** Rendering and sending of a response: as fast as JSON is made of the status. */
const BYTES_PER_MS = 200_000;

interface Context {
  options: HttpOptions;
  streams: Set<Stream>;
  connections: Connections;
  budget: RequestBudget;
}

async function exchange(incoming: IncomingMessage, outgoing: ServerResponse, context: Context): Promise<void> {
  try {
    await answer(incoming, outgoing, context);
  } catch {
    // The client has disconnected, or did not send its body in time.
    incoming.socket.destroy();
  }
}

async function answer(incoming: IncomingMessage, outgoing: ServerResponse, context: Context): Promise<void> {
  const { options, streams, connections, budget } = context;
  const deadline = setTimeout(() => incoming.socket.destroy(), options.times.requestMs);
  const body = await bodyOf(incoming, options.bodyBytesMax).finally(() => clearTimeout(deadline));
  // Not earlier: a connection whose body does not arrive must not keep its place.
  connections.asks(incoming.socket, outgoing);
  const waitMs = budget.waitMs(performance.now());
  if (waitMs > 0) await Bun.sleep(waitMs);
  const begunMs = performance.now();
  const answering = options.answer(requestOf(incoming, body));
  // Only the synchronous part of the handler counts; the time that a reload takes delays nobody else.
  const workMs = performance.now() - begunMs;
  const { status, headers, content } = await answering;
  const bytesOut = typeof content === "string" ? content.length : 0;
  budget.spend(workMs + bytesOut / BYTES_PER_MS, performance.now());
  // The unread rest of the body would be parsed as the next request.
  const isLast = body === null || connections.stopping;
  const head = { ...headers, ...(isLast && { Connection: "close" }) };
  if (typeof content === "string") {
    const bytes = Buffer.from(content);
    outgoing.writeHead(status, { ...head, "Content-Length": String(bytes.length) });
    dropIfStalled(outgoing, options.times.stalledMs);
    outgoing.end(incoming.method === "HEAD" ? undefined : bytes);
    return;
  }
  outgoing.writeHead(status, head);
  if (incoming.method === "HEAD") {
    outgoing.end();
    await content.cancel();
    return;
  }
  const stream = new Stream(outgoing, content, options.times.stalledMs);
  streams.add(stream);
  await stream.run();
  streams.delete(stream);
}

/** Drops the client unless it reads the whole response in time. */
function dropIfStalled(outgoing: ServerResponse, stalledMs: number): void {
  const timer = setTimeout(() => outgoing.destroy(), stalledMs);
  outgoing.once("close", () => clearTimeout(timer));
}

/** A streamed response. The next part is requested when the client has read the one before. */
class Stream {
  readonly #outgoing: ServerResponse;
  readonly #stalledMs: number;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;

  constructor(outgoing: ServerResponse, content: ReadableStream<Uint8Array>, stalledMs: number) {
    this.#outgoing = outgoing;
    this.#stalledMs = stalledMs;
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
        if (!outgoing.write(value)) await taken(outgoing, this.#stalledMs);
      }
      outgoing.end();
    } catch {
      // The source failed: a truncated response must not look complete.
      outgoing.destroy();
    }
  }

  /** Ends the source; what it has already produced is still sent. */
  end(): void {
    this.#reader.cancel().catch(() => undefined);
  }
}

/** Resolves when the client has read what was written, or has disconnected. */
function taken(outgoing: ServerResponse, stalledMs: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(() => outgoing.destroy(), stalledMs);
  const settle = (): void => {
    clearTimeout(timer);
    outgoing.off("drain", settle).off("close", settle);
    resolve();
  };
  outgoing.once("drain", settle).once("close", settle);
  return promise;
}

/** null = it is longer; the rest is read and dropped, because a client that is still sending does not read the response. */
function bodyOf(incoming: IncomingMessage, bytesMax: number): Promise<Uint8Array | null> {
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array | null>();
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  if (Number(incoming.headers["content-length"] ?? 0) > bytesMax) resolve(null);
  incoming.on("data", (chunk: Uint8Array) => {
    bytes += chunk.length;
    if (bytes > bytesMax) resolve(null);
    else chunks.push(chunk);
  });
  incoming.once("end", () => resolve(Buffer.concat(chunks)));
  incoming.once("error", reject);
  incoming.once("close", () => reject(new Error("the client is gone")));
  return promise;
}

function requestOf(incoming: IncomingMessage, body: Uint8Array | null): HttpRequest {
  const headers = new Headers();
  const { rawHeaders, method = "GET" } = incoming;
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) headers.append(rawHeaders[i]!, rawHeaders[i + 1]!);
  // RFC 9112 section 3.2: the target may be an absolute URL, or not a path at all.
  const target = (incoming.url ?? "").replace(/^[a-z]+:\/\/[^/?#]*/i, "").replace(/#.*$/s, "");
  const mark = target.indexOf("?");
  const path = mark < 0 ? target : target.slice(0, mark);
  const query = mark < 0 ? "" : target.slice(mark + 1);
  const peer = incoming.socket.remoteAddress ?? "";
  return { method, path: path.startsWith("/") ? path : `/${path}`, query, headers, body, peer };
}
