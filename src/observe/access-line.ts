// One line of the access log, as text (logfmt) or JSON. The keys and their order are the contract of CONFIG's access log.
import { dryRunNames } from "../core/dry-run.ts";
import { addressAt, formatHostPort, isUnixPeerAt } from "../core/address.ts";
import type { End, EndedBy } from "../core/ends.ts";
import { monotonicMs } from "../platform/clock.ts";
import { PROXIED, ROW, ROW_FLOAT, ROW_FLOATS, ROW_WORDS, type Ledger } from "../shared/ledger.ts";

/** Empty strings, negative numbers and a `queueMs` of 0 are left out. */
export interface AccessLine {
  /** When the connection ended, milliseconds since the epoch. */
  timeMs: number;
  /** The number of the connection, unique while the process lives. */
  id: number;
  listener: string;
  /** "address:port", from a trusted PROXY header if there is one; "unix" for a unix socket. */
  client: string;
  /** The address that connected to lb, if that is a proxy and not the client. */
  peer: string;
  pool: string;
  backend: string;
  /** The server name that the client sent, and the TLS version. */
  sni: string;
  tls: string;
  /** The subject's common name in the client's certificate. */
  clientCert: string;
  /** Time in the queue of the pool; 0 = the connection did not wait. */
  queueMs: number;
  connectMs: number;
  durationMs: number;
  bytesIn: number;
  bytesOut: number;
  retries: number;
  /** Limits that would have acted on the connection and were not enforced, separated by commas. */
  dryRun: string;
  worker: number;
  end: End;
  endBy: EndedBy;
  /** The reason for the end if it has a name, such as an errno's. */
  error: string;
}

/** The fields of a line that are not in the ledger. */
export type BesideLedger = Omit<
  AccessLine,
  "timeMs" | "id" | "client" | "peer" | "queueMs" | "durationMs" | "bytesIn" | "bytesOut" | "retries" | "dryRun"
>;

/** The line of a connection that ends now, from its row of the ledger. */
export function lineOfRow(
  { words, floats }: Pick<Ledger, "words" | "floats">,
  row: number,
  beside: BesideLedger,
): AccessLine {
  const at = row * ROW_WORDS;
  const floatsAt = row * ROW_FLOATS;
  return {
    timeMs: Date.now(),
    id: floats[floatsAt + ROW_FLOAT.id]!,
    client: clientText(words, at + ROW.address),
    peer: words[at + ROW.proxied] === PROXIED.yes ? clientText(words, at + ROW.peer) : "",
    queueMs: words[at + ROW.queueMs]!,
    durationMs: monotonicMs() - floats[floatsAt + ROW_FLOAT.startedMs]!,
    bytesIn: floats[floatsAt + ROW_FLOAT.bytesIn]!,
    bytesOut: floats[floatsAt + ROW_FLOAT.bytesOut]!,
    retries: words[at + ROW.retries]!,
    dryRun: dryRunNames(words[at + ROW.dryRun]!),
    ...beside,
  };
}

/** A line without its line feed. Names from the config are safe in both formats; everything is escaped anyway. */
export function formatAccess(format: "text" | "json", line: AccessLine): string {
  return format === "json" ? asJson(line) : asText(line);
}

/** A line of the format "json", parsed. */
export interface JsonAccessLine {
  time: string;
  listener: string;
  client: string;
  backend?: string;
  end: string;
  end_by: string;
  [key: string]: string | number | undefined;
}

function asJson(line: AccessLine): string {
  let text = `{"time":"${time(line.timeMs)}","id":${line.id},"listener":${JSON.stringify(line.listener)},"client":"${line.client}"`;
  if (line.peer !== "") text += `,"peer":"${line.peer}"`;
  if (line.pool !== "") text += `,"pool":${JSON.stringify(line.pool)}`;
  if (line.backend !== "") text += `,"backend":${JSON.stringify(line.backend)}`;
  if (line.sni !== "") text += `,"sni":${JSON.stringify(line.sni)}`;
  if (line.tls !== "") text += `,"tls":"${line.tls}"`;
  if (line.clientCert !== "") text += `,"client_cert":${JSON.stringify(line.clientCert)}`;
  if (line.queueMs > 0) text += `,"queue_ms":${line.queueMs}`;
  if (line.connectMs >= 0) text += `,"connect_ms":${milliseconds(line.connectMs)}`;
  text += `,"duration_ms":${milliseconds(line.durationMs)},"bytes_in":${line.bytesIn},"bytes_out":${line.bytesOut}`;
  text += `,"retries":${line.retries}`;
  if (line.dryRun !== "") text += `,"dry_run":"${line.dryRun}"`;
  text += `,"worker":${line.worker},"end":"${line.end}","end_by":"${line.endBy}"`;
  if (line.error !== "") text += `,"error":${JSON.stringify(line.error)}`;
  return `${text}}`;
}

function asText(line: AccessLine): string {
  let text = `time=${time(line.timeMs)} id=${line.id} listener=${word(line.listener)} client=${line.client}`;
  if (line.peer !== "") text += ` peer=${line.peer}`;
  if (line.pool !== "") text += ` pool=${word(line.pool)}`;
  if (line.backend !== "") text += ` backend=${word(line.backend)}`;
  if (line.sni !== "") text += ` sni=${word(line.sni)}`;
  if (line.tls !== "") text += ` tls=${line.tls}`;
  if (line.clientCert !== "") text += ` client_cert=${word(line.clientCert)}`;
  if (line.queueMs > 0) text += ` queue_ms=${line.queueMs}`;
  if (line.connectMs >= 0) text += ` connect_ms=${milliseconds(line.connectMs)}`;
  text += ` duration_ms=${milliseconds(line.durationMs)} bytes_in=${line.bytesIn} bytes_out=${line.bytesOut}`;
  text += ` retries=${line.retries}`;
  if (line.dryRun !== "") text += ` dry_run=${line.dryRun}`;
  text += ` worker=${line.worker} end=${line.end} end_by=${line.endBy}`;
  if (line.error !== "") text += ` error=${word(line.error)}`;
  return text;
}

let lastMs = -1;
let lastText = "";

// Lines come in bursts; most of them have the same millisecond as the one before.
function time(ms: number): string {
  const whole = Math.floor(ms);
  if (whole !== lastMs) {
    lastMs = whole;
    lastText = new Date(whole).toISOString();
  }
  return lastText;
}

function milliseconds(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}

/** A logfmt value: quoted if it contains a space, a quote, an equals sign or a control character. */
export function word(value: string): string {
  if (/^[^\s"=\p{Cc}]+$/u.test(value)) return value;
  return JSON.stringify(value).replace(/\p{Cc}/gu, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Maximum length of the name of a client's certificate in the log, in characters; X.520 allows 64 for a common name. */
const CLIENT_CERT_CHARACTERS_MAX = 256;

/**
 * A name from outside in a form that is safe in the log: characters that are not printable or change how a line looks (controls,
 * direction marks, line separators) become "?", and a name that is too long ends with "...".
 */
export function printableName(name: string): string {
  const text = name.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "?");
  return text.length <= CLIENT_CERT_CHARACTERS_MAX
    ? text
    : `${text.slice(0, CLIENT_CERT_CHARACTERS_MAX).toWellFormed()}...`;
}

/** A client's address in the log; `at` is the first of its five words. All zeros is a unix socket. */
export function clientText(words: Int32Array, at: number): string {
  return isUnixPeerAt(words, at) ? "unix" : formatHostPort(addressAt(words, at), words[at + 4]!);
}
