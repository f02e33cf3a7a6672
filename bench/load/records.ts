// Counts the application's bytes in a TLS 1.3 stream (RFC 8446 section 5.2) by its record headers. Nothing is decrypted, so that a client
// of a bulk stream does not use the CPU that the backend needs.

const headerBytes = 5;
/** Overhead of an AES-GCM record: the hidden content type and the tag. */
const overheadBytes = 1 + 16;
const applicationData = 23;

export class Records {
  readonly #header = new Uint8Array(headerBytes);
  #headerLength = 0;
  /** Remaining bytes of the record whose header was read. */
  #left = 0;

  /** The application's bytes in the records whose header ends within the first `length` bytes of a chunk. */
  payload(chunk: Uint8Array, length: number): number {
    let bytes = 0;
    for (let at = 0; at < length;) {
      if (this.#left > 0) {
        const taken = Math.min(this.#left, length - at);
        this.#left -= taken;
        at += taken;
        continue;
      }
      this.#header[this.#headerLength++] = chunk[at++]!;
      if (this.#headerLength === headerBytes) bytes += this.#begin();
    }
    return bytes;
  }

  #begin(): number {
    const [type, , , high = 0, low = 0] = this.#header;
    if (type !== applicationData) throw new Error(`a TLS record of type ${type} came amid the answer`);
    this.#headerLength = 0;
    this.#left = high * 256 + low;
    return Math.max(0, this.#left - overheadBytes);
  }
}
