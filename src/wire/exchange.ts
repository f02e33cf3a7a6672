// What a health check says to a backend and what it wants to hear, without I/O: bytes in, the next step out.
import { latin1 } from "./latin1.ts";

/** What an exchange wants next. `send` is written first; null = nothing. */
export type Step =
  | { readonly is: "more"; readonly send: Uint8Array | null }
  /** Do a TLS handshake, and then `next`. */
  | { readonly is: "tls"; readonly next: Step }
  | Verdict;

/** How an exchange ends. `send` is a goodbye. */
export type Verdict =
  | { readonly is: "ok"; readonly send: Uint8Array | null }
  | { readonly is: "bad"; readonly why: string; readonly send: Uint8Array | null };

/** Why no more bytes come: the backend has sent FIN, or the check's time is up. */
export type Cut = "closed" | "timeout";

/** One conversation with one backend; the state of a check lives in it. */
export interface Exchange {
  /** The connection is made, TLS included. */
  begin(): Step;
  /** Bytes have come; they may be any part of an answer. */
  push(bytes: Uint8Array): Step;
  /** No more bytes come. */
  end(cut: Cut): Verdict;
}

export const more = (send: Uint8Array | null = null): Step => ({ is: "more", send });
export const ok = (send: Uint8Array | null = null): Verdict => ({ is: "ok", send });
export const bad = (why: string, send: Uint8Array | null = null): Verdict => ({ is: "bad", why, send });

/** A check that was cut before the backend had said all that was wanted. */
export function cutShort(cut: Cut, answer: Uint8Array): Verdict {
  const what = cut === "timeout" ? "no answer in time" : "closed before the answer";
  return bad(answer.length === 0 ? what : `${what}: found ${excerpt(answer)}`);
}

/** To connect, or to complete the TLS handshake, is the whole check. */
export const connectOnly: Exchange = { begin: () => ok(), push: () => ok(), end: (cut) => cutShort(cut, NOTHING) };

const NOTHING = new Uint8Array(0);

const EXCERPT_BYTES = 80;

/** The begin of what a backend has said, for a message. */
export function excerpt(bytes: Uint8Array): string {
  const text = JSON.stringify(latin1(bytes.subarray(0, EXCERPT_BYTES)));
  return bytes.length > EXCERPT_BYTES ? `${text}...` : text;
}
