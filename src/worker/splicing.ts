// Bytes that go from one socket of a connection to the other inside the kernel, where nothing needs to see them.
import { RECEIVER_FAILED, SENDER_FAILED, UNABLE } from "../platform/splice.ts";
import { ROW, ROW_WORDS } from "../shared/ledger.ts";
import type { Connection } from "./connection.ts";
import type { Flow } from "./flow.ts";

/** Of at least so many bytes is a chunk that more has come behind. */
export const SPLICE_FROM_BYTES = 16 * 1024;
/** At most about so many follow it in one go. */
const SPLICE_BYTES_MAX = 1024 * 1024;

/**
 * A large chunk has company: what else has come goes over inside the kernel, where nothing waits before it, no limit holds
 * it back and neither side speaks TLS with us. Hot path.
 */
export function splice(connection: Connection, flow: Flow): void {
  const { plane } = connection;
  if (connection.speaksTls || connection.phase !== "relaying" || flow.pace !== null || !flow.drained) return;
  const at = connection.row * ROW_WORDS;
  const client = plane.words[at + ROW.clientFd]!;
  const backend = plane.words[at + ROW.backendFd]!;
  const { splice: pipe } = plane;
  if (pipe === null || client < 0 || backend < 0) return;
  const upwards = flow === connection.up;
  const outcome = upwards ? pipe.move(client, backend, SPLICE_BYTES_MAX) : pipe.move(backend, client, SPLICE_BYTES_MAX);
  const { moved, rest } = pipe;
  const bytes = moved + (rest === null ? 0 : rest.length);
  if (bytes > 0) {
    if (upwards) connection.countIn(bytes);
    else connection.countOut(bytes);
  }
  if (outcome === SENDER_FAILED) connection.finish("reset", upwards ? "client" : "backend");
  else if (outcome === RECEIVER_FAILED || (rest !== null && !flow.forward(rest)))
    connection.finish("reset", upwards ? "backend" : "client");
  else if (outcome === UNABLE) plane.spliceNoMore();
}
