// Alerts before there are keys, and the types and lengths of the records of one direction of a TLS connection, without decryption. Tells
// an end with close_notify from a truncation (RFC 8446 section 6.1), which the runtime reports alike.

/** Descriptions of alerts (RFC 8446 section 6). */
export const ALERTS = {
  unexpectedMessage: 10,
  recordOverflow: 22,
  illegalParameter: 47,
  decodeError: 50,
  protocolVersion: 70,
  unrecognizedName: 112,
} as const;

export type AlertDescription = (typeof ALERTS)[keyof typeof ALERTS];

/** A fatal alert in a record of its own, as TLS 1.2 and 1.3 both send it before there are keys (RFC 8446 section 5.1). */
export function fatalAlert(description: AlertDescription): Uint8Array {
  return new Uint8Array([ALERT, 3, 3, 0, ALERT_BYTES, FATAL, description]);
}

/** Content type, version, length (RFC 8446 section 5.1). */
const HEAD_BYTES = 5;
const ALERT = 21;
const APPLICATION_DATA = 23;

/** The overhead of a protected record in TLS 1.3: its true type and, in every existing suite, a tag of 16 bytes. */
const ADDED_BYTES = 17;
/** Level and description. */
const ALERT_BYTES = 2;
const FATAL = 2;

/**
 * Follows the records as their bytes arrive. In TLS 1.2 the type of an alert is visible. In TLS 1.3 all records look alike: an alert is
 * recognised by its length, and told from data of that length by the decrypted output, because data produces output and an alert does not.
 */
export class RecordWalk {
  /** Bytes of the record's header that have arrived, and bytes of its payload that have not. */
  #head = 0;
  #left = 0;
  #type = 0;
  #length = 0;
  /** Content of all complete records so far, as TLS 1.3 counts it. */
  #content = 0;
  /** The part of it that had produced no data when the last bytes began. */
  #hidden = 0;

  /**
   * The next bytes of the wire, in any segmentation. `delivered` is how many bytes of data were decrypted before these bytes were.
   */
  push(bytes: Uint8Array, delivered: number): void {
    this.#hidden = this.#content - delivered;
    for (let at = 0; at < bytes.length;) {
      if (this.#left > 0) {
        const taken = Math.min(this.#left, bytes.length - at);
        this.#left -= taken;
        at += taken;
        // Only a complete record is decrypted.
        if (this.#left === 0 && this.#type === APPLICATION_DATA) this.#content += this.#length - ADDED_BYTES;
        continue;
      }
      const byte = bytes[at++]!;
      if (this.#head === 0) this.#type = byte;
      this.#length = ((this.#length << 8) | byte) & 0xffff;
      if (++this.#head < HEAD_BYTES) continue;
      this.#head = 0;
      this.#left = this.#length;
    }
  }

  /**
   * Whether the last record was an alert, now that no more come: that is close_notify, since any other alert has ended the connection.
   * `delivered` is how many bytes of data were decrypted in total. With padded records, which hardly anybody uses, an alert counts as a
   * truncation.
   */
  closesOrderly(delivered: number): boolean {
    if (this.#head > 0 || this.#left > 0) return false;
    if (this.#type === ALERT) return true;
    const alert = this.#type === APPLICATION_DATA && this.#length === ALERT_BYTES + ADDED_BYTES;
    return alert && this.#content - delivered - this.#hidden >= ALERT_BYTES;
  }
}
