// Which addresses count as one client: the bits that `client_prefix` keeps, and the hash of a client for source_hash.
import { isIPv4, maskAddress, type Address } from "./address.ts";
import type { HashKeyName } from "./balance.ts";
import { hashText, hashWords } from "./hash.ts";

/** `client_prefix` of a listener. */
export interface PrefixLengths {
  readonly ipv4: number;
  readonly ipv6: number;
}

/** The masked words of a client's address. */
export interface ClientWords {
  w0: number;
  w1: number;
  w2: number;
  w3: number;
}

export class ClientPrefix {
  readonly #masksIPv4: Address;
  readonly #masksIPv6: Address;

  constructor({ ipv4, ipv6 }: PrefixLengths) {
    this.#masksIPv4 = maskAddress(ALL_ONES, 96 + ipv4);
    this.#masksIPv6 = maskAddress(ALL_ONES, ipv6);
  }

  /** The address in the cells from `at`, masked to the bits of the prefix. Valid until the next call. Hot path. */
  of(words: Int32Array, at: number): ClientWords {
    const masks = isIPv4(words[at]!, words[at + 1]!, words[at + 2]!) ? this.#masksIPv4 : this.#masksIPv6;
    masked.w0 = words[at]! & masks[0];
    masked.w1 = words[at + 1]! & masks[1];
    masked.w2 = words[at + 2]! & masks[2];
    masked.w3 = words[at + 3]! & masks[3];
    return masked;
  }

  /**
   * The hash for source_hash, an unsigned 32-bit number that is the same on every machine: of the client whose address is in the cells from
   * `at`, with its port, which follows, for "client_port", or of the server name of the ClientHello, if there is one.
   */
  hashOf(words: Int32Array, at: number, by: HashKeyName, sni: string): number {
    if (by === "sni" && sni !== "") return hashText(sni.toLowerCase(), 0);
    const port = by === "client_port" ? words[at + 4]! : 0;
    const client = this.of(words, at);
    hashWords(UNKEYED, port, client.w0, client.w1, client.w2, client.w3, hashed);
    return hashed[0]! >>> 0;
  }
}

/** A client that chooses its hash gains nothing: it only chooses its backend. */
const UNKEYED = new Int32Array(2);
const hashed = new Int32Array(2);

/** Valid for one call. */
const masked: ClientWords = { w0: 0, w1: 0, w2: 0, w3: 0 };

const ALL_ONES: Address = [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff];
