// What a health check says to a backend and what it wants to hear, without I/O: bytes in, the next step out.

/** What an exchange wants next. `send` is written first; null = nothing. */
export type Step =
  | { readonly is: "more"; readonly send: Uint8Array | null }
  | { readonly is: "ok"; readonly send: Uint8Array | null }
  | { readonly is: "bad"; readonly why: string };

/** One conversation with one backend; the state of a check lives in it. */
export interface Exchange {
  /** The connection is made, TLS included. */
  begin(): Step;
  /** Bytes have come; they may be any part of an answer. */
  push(bytes: Uint8Array): Step;
}

const OK: Step = { is: "ok", send: null };

/** To connect, or to complete the TLS handshake, is the whole check. */
export const connectOnly: Exchange = { begin: () => OK, push: () => OK };
