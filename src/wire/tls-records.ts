// Alerts before the keys are there, and the records of one direction of a TLS connection, seen from outside: their types and
// lengths, nothing of what they hide. Tells an end with close_notify from a cut (RFC 8446 section 6.1), which the runtime reports alike.

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

/** What TLS 1.3 adds to the content of each protected record: its true type and, in every suite there is, a tag of 16 bytes. */
const ADDED_BYTES = 17;
/** Level and description. */
const ALERT_BYTES = 2;
const FATAL = 2;

/**
 * Follows the records as their bytes come. In TLS 1.2 an alert's type stands in the clear. In TLS 1.3 every record looks the
 * same, so an alert is told by its length, and from data of that length by this: data comes out decrypted, an alert does not.
 */
export class RecordWalk {
  /** Bytes of the record's head that have come, and of its payload that have not. */
  #head = 0;
  #left = 0;
  #type = 0;
  #length = 0;
  /** Content of all whole records so far, by TLS 1.3's count. */
  #content = 0;
  /** What of it had come out as no data when the last bytes began. */
  #hidden = 0;

  /**
   * The next bytes of the wire, in pieces as they come. `delivered` is how many bytes of data have come out before these
   * were decrypted.
   */
  push(bytes: Uint8Array, delivered: number): void {
    this.#hidden = this.#content - delivered;
    for (let at = 0; at < bytes.length;) {
      if (this.#left > 0) {
        const taken = Math.min(this.#left, bytes.length - at);
        this.#left -= taken;
        at += taken;
        // Only a whole record is decrypted.
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
   * Whether the last that came was an alert, now that no more comes: close_notify, since any other has broken the connection.
   * `delivered` is how many bytes of data have come out in all. Where records are padded, which hardly anybody does, an alert
   * is taken for a cut.
   */
  closesOrderly(delivered: number): boolean {
    if (this.#head > 0 || this.#left > 0) return false;
    if (this.#type === ALERT) return true;
    const alert = this.#type === APPLICATION_DATA && this.#length === ALERT_BYTES + ADDED_BYTES;
    return alert && this.#content - delivered - this.#hidden >= ALERT_BYTES;
  }
}
