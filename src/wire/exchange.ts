// The dialogue of a health check with a backend, without I/O: bytes in, the next step out.
import { latin1 } from "./latin1.ts";

/** The next step of an exchange. `send` is written first; null = nothing. */
export type Step =
  | { readonly is: "more"; readonly send: Uint8Array | null }
  /** Do a TLS handshake, and then `next`. */
  | { readonly is: "tls"; readonly next: Step }
  | Verdict;

/** The result of an exchange. `send` is written before the connection is closed, such as QUIT. */
export type Verdict =
  | { readonly is: "ok"; readonly send: Uint8Array | null }
  | { readonly is: "bad"; readonly why: string; readonly send: Uint8Array | null };

/** Why no more bytes come: the backend has sent FIN, or the check has timed out. */
export type Cut = "closed" | "timeout";

/** One exchange with one backend; it holds the state of the check. */
export interface Exchange {
  /** The connection is established, TLS included. */
  begin(): Step;
  /** Bytes have arrived, in any segmentation. */
  push(bytes: Uint8Array): Step;
  /** No more bytes come. */
  end(cut: Cut): Verdict;
}

export const more = (send: Uint8Array | null = null): Step => ({ is: "more", send });
export const ok = (send: Uint8Array | null = null): Verdict => ({ is: "ok", send });
export const bad = (why: string, send: Uint8Array | null = null): Verdict => ({ is: "bad", why, send });

/** The result of a check that ended before the backend's answer was complete. */
export function cutShort(cut: Cut, answer: Uint8Array): Verdict {
  const what = cut === "timeout" ? "no answer in time" : "closed before the answer";
  return bad(answer.length === 0 ? what : `${what}: found ${excerpt(answer)}`);
}

/** The check that succeeds with the connection, or with the TLS handshake. */
export const connectOnly: Exchange = { begin: () => ok(), push: () => ok(), end: (cut) => cutShort(cut, NOTHING) };

const NOTHING = new Uint8Array(0);

const EXCERPT_BYTES = 80;

/** The beginning of a backend's answer, for a message. */
export function excerpt(bytes: Uint8Array): string {
  const text = JSON.stringify(latin1(bytes.subarray(0, EXCERPT_BYTES)));
  return bytes.length > EXCERPT_BYTES ? `${text}...` : text;
}
