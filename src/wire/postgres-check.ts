// The health check for PostgreSQL: the part of its protocol (version 3.0, "Message Flow" and "Message Formats" in its manual) that
// shows that it serves, in a way that it does not log.
import { Answer } from "./answer.ts";
import { bad, cutShort, excerpt, more, ok, type Cut, type Exchange, type Step, type Verdict } from "./exchange.ts";
import { latin1 } from "./latin1.ts";

/** Maximum size of one message; an error with every field fits. */
export const POSTGRES_MESSAGE_BYTES_MAX = 16 * 1024;

const SSL_REQUEST = Uint8Array.of(0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f);
const TERMINATE = Uint8Array.of(0x58, 0, 0, 0, 4);
const PROTOCOL_3 = 3 << 16;

interface PostgresCheckSpec {
  /** "" = no user: the check ends with TLS, or with the answer that the server has no TLS. */
  user: string;
  /** TLS was established before, without an SSLRequest. */
  isSecured: boolean;
}

/**
 * SSLRequest, and after "S" a TLS handshake: a server whose client leaves after "S" logs that it could not accept the connection. With
 * a user the startup packet follows, and a request for a password counts as success: clients without one leave at that point too. A login
 * without a password is complete with ReadyForQuery: a server without a free connection says so only after AuthenticationOk.
 */
export class PostgresCheck implements Exchange {
  readonly #spec: PostgresCheckSpec;
  readonly #answer = new Answer(POSTGRES_MESSAGE_BYTES_MAX);
  #phase: "ssl" | "startup" = "ssl";

  constructor(spec: PostgresCheckSpec) {
    this.#spec = spec;
  }

  begin(): Step {
    return this.#spec.isSecured ? this.#startUp() : more(SSL_REQUEST);
  }

  push(bytes: Uint8Array): Step {
    this.#answer.push(bytes);
    return this.#phase === "ssl" ? this.#readSslAnswer() : this.#readMessages();
  }

  end(cut: Cut): Verdict {
    return cutShort(cut, this.#answer.bytes);
  }

  #readSslAnswer(): Step {
    const { bytes } = this.#answer;
    switch (bytes[0]) {
      case undefined:
        return more();
      case 0x53: // S
        // Plaintext bytes after it would be taken for encrypted ones (CVE-2021-23222).
        if (bytes.length > 1) return bad(`unexpected bytes after the answer to SSLRequest: ${excerpt(bytes)}`);
        this.#answer.clear();
        return { is: "tls", next: this.#startUp() };
      case 0x4e: // N
        this.#answer.clear();
        return this.#startUp();
      case 0x45: // E
        this.#phase = "startup";
        return this.#readMessages();
      default:
        return notPostgres(bytes);
    }
  }

  #startUp(): Step {
    this.#phase = "startup";
    const { user } = this.#spec;
    if (user === "") return ok();
    // The database "postgres" always exists; the default is a database with the name of the user, and the server logs if it is missing.
    const fields = `user\0${user}\0database\0postgres\0application_name\0lb\0\0`;
    const body = new TextEncoder().encode(fields);
    const packet = new Uint8Array(8 + body.length);
    const view = new DataView(packet.buffer);
    view.setUint32(0, packet.length);
    view.setUint32(4, PROTOCOL_3);
    packet.set(body, 8);
    return more(packet);
  }

  #readMessages(): Step {
    const { bytes } = this.#answer;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    let isAccepted = false;
    for (let at = 0; at + 5 <= bytes.length;) {
      const type = bytes[at];
      const length = view.getUint32(at + 1);
      if (length < 4 || at + 1 + length > POSTGRES_MESSAGE_BYTES_MAX) {
        return notPostgres(bytes);
      }
      if (at + 1 + length > bytes.length) return more();
      const body = bytes.subarray(at + 5, at + 1 + length);
      switch (type) {
        case 0x52: // AuthenticationOk, or a request for authentication: R
          if (body.length < 4) return notPostgres(bytes);
          if (view.getUint32(at + 5) !== 0) return ok();
          isAccepted = true;
          break;
        case 0x45: // ErrorResponse: E
          return bad(errorText(body));
        case 0x5a: // ReadyForQuery: Z
          if (isAccepted) return ok(TERMINATE);
          return notPostgres(bytes);
        case 0x53: // ParameterStatus: S
        case 0x4b: // BackendKeyData: K
          if (isAccepted) break;
          return notPostgres(bytes);
        case 0x4e: // NoticeResponse: N
        case 0x76: // NegotiateProtocolVersion: v
          break;
        default:
          return notPostgres(bytes);
      }
      at += 1 + length;
    }
    return more();
  }
}

function notPostgres(bytes: Uint8Array): Verdict {
  return bad(`the answer is not PostgreSQL's: ${excerpt(bytes)}`);
}

/** Fields of one letter and a text each: C is the SQLSTATE, M the message. */
function errorText(body: Uint8Array): string {
  const fields = latin1(body.subarray(0, 2048)).split("\0");
  const field = (letter: string): string => fields.find((one) => one.startsWith(letter))?.slice(1, 200) ?? "";
  return `error ${field("C")}: ${JSON.stringify(field("M"))}`;
}
