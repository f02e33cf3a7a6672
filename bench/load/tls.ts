// TLS for the generators: OpenSSL's library over the sockets of libc.ts. The client fixes version, cipher and curve, the same for every
// contender, and each handshake is checked for them. Certificates are not verified.
import { dlopen, FFIType, type Pointer } from "bun:ffi";

const openssl = dlopen("libssl.so.3", {
  TLS_client_method: { args: [], returns: "ptr" },
  SSL_CTX_new: { args: ["ptr"], returns: "ptr" },
  SSL_CTX_ctrl: { args: ["ptr", "i32", FFIType.i64_fast, "ptr"], returns: FFIType.i64_fast },
  SSL_CTX_set_options: { args: ["ptr", FFIType.u64_fast], returns: FFIType.u64_fast },
  SSL_CTX_set_ciphersuites: { args: ["ptr", "ptr"], returns: "i32" },
  SSL_CTX_set_cipher_list: { args: ["ptr", "ptr"], returns: "i32" },
  SSL_new: { args: ["ptr"], returns: "ptr" },
  SSL_free: { args: ["ptr"], returns: "void" },
  SSL_set_fd: { args: ["ptr", "i32"], returns: "i32" },
  SSL_set_quiet_shutdown: { args: ["ptr", "i32"], returns: "void" },
  SSL_shutdown: { args: ["ptr"], returns: "i32" },
  SSL_connect: { args: ["ptr"], returns: "i32" },
  SSL_read: { args: ["ptr", "ptr", "i32"], returns: "i32" },
  SSL_write: { args: ["ptr", "ptr", "i32"], returns: "i32" },
  SSL_get_error: { args: ["ptr", "i32"], returns: "i32" },
  SSL_version: { args: ["ptr"], returns: "i32" },
  SSL_session_reused: { args: ["ptr"], returns: "i32" },
  SSL_set_session: { args: ["ptr", "ptr"], returns: "i32" },
  SSL_get1_session: { args: ["ptr"], returns: "ptr" },
  SSL_SESSION_free: { args: ["ptr"], returns: "void" },
}).symbols;

const SSL_ERROR_WANT_READ = 2;
const SSL_ERROR_ZERO_RETURN = 6;
const SSL_CTRL_SET_SESS_CACHE_MODE = 44;
const SSL_CTRL_SET_GROUPS_LIST = 92;
const SSL_CTRL_SET_MIN_PROTO_VERSION = 123;
const SSL_CTRL_SET_MAX_PROTO_VERSION = 124;
const SSL_SESS_CACHE_OFF = 0;
/** An end without close_notify is accepted: how proxies end a stream is not measured here. */
const SSL_OP_IGNORE_UNEXPECTED_EOF = 1 << 7;

export type TlsVersion = "1.2" | "1.3";

const numbers: Record<TlsVersion, number> = { "1.2": 0x0303, "1.3": 0x0304 };

/** A session that can be resumed; its owner must free it. */
export type Session = Pointer;

/** The context of all connections of a generator. */
export class TlsClient {
  readonly #context: Pointer;
  readonly #version: number;

  constructor(version: TlsVersion) {
    this.#version = numbers[version];
    this.#context = need(openssl.SSL_CTX_new(openssl.TLS_client_method()), "SSL_CTX_new");
    this.#control(SSL_CTRL_SET_MIN_PROTO_VERSION, this.#version);
    this.#control(SSL_CTRL_SET_MAX_PROTO_VERSION, this.#version);
    this.#control(SSL_CTRL_SET_SESS_CACHE_MODE, SSL_SESS_CACHE_OFF);
    // With TLS 1.2 the list must also contain the curve of the certificate's key (RFC 8422 section 5.1).
    this.#control(SSL_CTRL_SET_GROUPS_LIST, 0, text(version === "1.2" ? "X25519:P-256" : "X25519"));
    need(openssl.SSL_CTX_set_ciphersuites(this.#context, text("TLS_AES_256_GCM_SHA384")), "SSL_CTX_set_ciphersuites");
    const older = "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384";
    need(openssl.SSL_CTX_set_cipher_list(this.#context, text(older)), "SSL_CTX_set_cipher_list");
    openssl.SSL_CTX_set_options(this.#context, SSL_OP_IGNORE_UNEXPECTED_EOF);
  }

  /** A TLS connection over a connected socket, before its handshake. */
  over(fd: number, session?: Session): TlsStream {
    return new TlsStream(need(openssl.SSL_new(this.#context), "SSL_new"), fd, this.#version, session);
  }

  #control(command: number, value: number, pointer: Uint8Array | null = null): void {
    openssl.SSL_CTX_ctrl(this.#context, command, value, pointer);
  }
}

/** One TLS connection. It does not own the socket. */
export class TlsStream {
  readonly #ssl: Pointer;
  readonly #version: number;

  constructor(ssl: Pointer, fd: number, version: number, session: Session | undefined) {
    this.#ssl = ssl;
    this.#version = version;
    openssl.SSL_set_fd(ssl, fd);
    openssl.SSL_set_quiet_shutdown(ssl, 1);
    if (session !== undefined) openssl.SSL_set_session(ssl, session);
  }

  /** Continues the handshake; returns whether it is complete. If not, call it again when the socket is readable. */
  handshake(): boolean {
    const result = openssl.SSL_connect(this.#ssl);
    if (result !== 1) return this.#wants(result, "the TLS handshake failed");
    const version = openssl.SSL_version(this.#ssl);
    if (version !== this.#version) throw new Error(`TLS version 0x${version.toString(16)} was negotiated`);
    return true;
  }

  /** Whether the handshake resumed a session. */
  get resumed(): boolean {
    return openssl.SSL_session_reused(this.#ssl) === 1;
  }

  /** Sends all of it; the kernel always has room for a generator's requests. */
  send(bytes: Uint8Array): void {
    const sent = openssl.SSL_write(this.#ssl, bytes, bytes.length);
    if (sent !== bytes.length) throw new Error(`SSL_write() took ${sent} of ${bytes.length} bytes`);
  }

  /** The number of received application bytes, at most one record; 0 at the end, -1 = try again when the socket is readable. */
  receive(into: Uint8Array): number {
    const count = openssl.SSL_read(this.#ssl, into, into.length);
    if (count > 0) return count;
    if (openssl.SSL_get_error(this.#ssl, count) === SSL_ERROR_ZERO_RETURN) return 0;
    this.#wants(count, "SSL_read() failed: the connection was reset");
    return -1;
  }

  /** The session from the server; with TLS 1.3 there is one only after something was received. */
  session(): Session {
    return need(openssl.SSL_get1_session(this.#ssl), "SSL_get1_session");
  }

  /** Frees everything except the socket, and sends nothing. */
  free(): void {
    // Without a shutdown, even a silent one, OpenSSL considers the session broken and does not resume it.
    openssl.SSL_shutdown(this.#ssl);
    openssl.SSL_free(this.#ssl);
  }

  #wants(result: number, otherwise: string): false {
    const error = openssl.SSL_get_error(this.#ssl, result);
    if (error !== SSL_ERROR_WANT_READ) throw new Error(`${otherwise} (SSL_get_error ${error})`);
    return false;
  }
}

export function freeSession(session: Session | undefined): void {
  if (session !== undefined) openssl.SSL_SESSION_free(session);
}

function text(words: string): Uint8Array {
  return new TextEncoder().encode(`${words}\0`);
}

function need<T extends Pointer | number>(value: T | bigint | null, call: string): T {
  if (value === null || typeof value === "bigint" || value === 0) throw new Error(`${call}() failed`);
  return value;
}
