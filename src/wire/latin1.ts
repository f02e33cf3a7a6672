// ISO 8859-1, in which every byte is a character: for text in protocols that do not name a character set.

/** The bytes as text, one character per byte. For a few thousand bytes at most. */
export function latin1(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}
