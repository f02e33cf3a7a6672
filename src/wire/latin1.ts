// ISO 8859-1, which gives every byte a character: for text in protocols that do not say what characters it has.

/** The bytes as text, a character a byte. A few thousand at most. */
export function latin1(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}
