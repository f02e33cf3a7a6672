// The HTTP server under the admin endpoint: requests and responses as the web has them, and no more connections than their share
// of the descriptors. By node:http, because Bun.serve has no limit on connections.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { ListenOptions, Socket } from "node:net";

export interface HttpOptions {
  /** Connections at once. Beyond that a new one takes the place of the one that has been without a request for longest. */
  connectionsMax: number;
  bodyBytesMax: number;
  /** Of a connection without a request. */
  idleMs: number;
  answer: (request: Request) => Promise<Response>;
}

export interface HttpServer {
  /** 0 at a unix socket. */
  readonly port: number;
  /** Accepts no more; answers under way are finished. */
  stop(): void;
}

/** A request must be whole by then. */
const REQUEST_MS = 10_000;

/** The server once it listens, or the code of the error, such as EADDRINUSE. */
export function serveHttp(where: ListenOptions, options: HttpOptions): Promise<HttpServer | string> {
  const server = createServer({
    keepAliveTimeout: options.idleMs,
    headersTimeout: REQUEST_MS,
    requestTimeout: REQUEST_MS,
  });
  const connections = new Connections(options.connectionsMax);
  server.on("connection", (socket: Socket) => connections.admit(socket));
  server.on("request", (incoming: IncomingMessage, outgoing: ServerResponse) => {
    connections.asks(incoming.socket, outgoing);
    void exchange(incoming, outgoing, options);
  });
  const { promise, resolve } = Promise.withResolvers<HttpServer | string>();
  server.on("error", (error) => resolve("code" in error ? String(error.code) : "an unknown error"));
  server.once("listening", () => {
    const address = server.address();
    resolve({
      port: address === null || typeof address === "string" ? 0 : address.port,
      stop: () => {
        server.close();
        server.closeIdleConnections();
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

async function exchange(incoming: IncomingMessage, outgoing: ServerResponse, options: HttpOptions): Promise<void> {
  const body = await bodyOf(incoming, options.bodyBytesMax);
  if (body === null) {
    outgoing.writeHead(413, { Connection: "close" }).end();
    return;
  }
  const response = await options.answer(requestOf(incoming, body));
  const content = new Uint8Array(await response.arrayBuffer());
  outgoing.writeHead(response.status, { ...response.headers.toJSON(), "Content-Length": String(content.length) });
  outgoing.end(incoming.method === "HEAD" ? undefined : content);
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

function requestOf(incoming: IncomingMessage, body: Uint8Array): Request {
  const headers = new Headers();
  const { rawHeaders, method = "GET" } = incoming;
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) headers.append(rawHeaders[i]!, rawHeaders[i + 1]!);
  // RFC 9112 section 3.2: the target may be a whole URL, or no path at all.
  const path = (incoming.url ?? "").replace(/^[a-z]+:\/\/[^/?#]*/i, "");
  const url = `http://localhost${path.startsWith("/") ? path : `/${path}`}`;
  return new Request(url, { method, headers, ...(body.length > 0 && { body: body as Uint8Array<ArrayBuffer> }) });
}
