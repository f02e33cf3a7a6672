// ClientHellos for tests: captured ones from fixtures/, and built ones with access to every length field.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

const FIXTURES = join(import.meta.dirname, "fixtures");

export const FIXTURE_NAMES = readdirSync(FIXTURES)
  .filter((file) => file.endsWith(".hex"))
  .map((file) => file.slice(0, -".hex".length))
  .toSorted();

/** The first line of a fixture names its source; the others are the bytes. */
export function fixture(name: string): Uint8Array {
  const text = readFileSync(join(FIXTURES, `${name}.hex`), "utf8").replace(/^#.*$/gm, "");
  return new Uint8Array(Buffer.from(text.replace(/\s/g, ""), "hex"));
}

/** Bytes that know the positions of their length fields. */
export interface Piece {
  bytes: number[];
  lengths: { at: number; size: number; of: string }[];
}

export type Part = Piece | Uint8Array | number[] | string;

export function joined(...parts: Part[]): Piece {
  const whole: Piece = { bytes: [], lengths: [] };
  for (const part of parts) {
    const piece = typeof part === "string" ? [...Buffer.from(part, "latin1")] : part;
    const { bytes, lengths } = "lengths" in piece ? piece : { bytes: [...piece], lengths: [] };
    for (const length of lengths) whole.lengths.push({ ...length, at: length.at + whole.bytes.length });
    whole.bytes.push(...bytes);
  }
  return whole;
}

/** The parts after their length in `size` bytes. */
export function vector(size: number, of: string, ...parts: Part[]): Piece {
  const { bytes, lengths } = joined(...parts);
  const head = Array.from({ length: size }, (_, i) => (bytes.length / 256 ** (size - 1 - i)) & 0xff);
  return joined({ bytes: head, lengths: [{ at: 0, size, of }] }, { bytes, lengths });
}

export const u16 = (value: number) => [value >> 8, value & 0xff];

export const extension = (type: number, ...parts: Part[]) =>
  joined(u16(type), vector(2, `extension ${type}`, ...parts));

export const serverName = (...names: Part[]) =>
  extension(0, vector(2, "server names", ...names.map((name) => joined([0], vector(2, "server name", name)))));

export const alpn = (...names: string[]) =>
  extension(16, vector(2, "ALPN list", ...names.map((name) => vector(1, "ALPN name", name))));

export const supportedVersions = (...versions: number[]) => extension(43, vector(1, "versions", ...versions.map(u16)));

export const ech = () =>
  extension(
    0xfe0d,
    [0],
    u16(1),
    u16(1),
    [7],
    vector(2, "ECH key", new Uint8Array(32)),
    vector(2, "ECH payload", "abc"),
  );

export interface HelloParts {
  legacyVersion?: number;
  sessionId?: Part;
  suites?: Part;
  compressions?: Part;
  /** Null omits the extensions' length too, as before TLS 1.2. */
  extensions?: Part[] | null;
}

/** The handshake message. */
export function message(parts: HelloParts = {}): Piece {
  const { legacyVersion = 0x0303, sessionId = new Uint8Array(32), extensions = [] } = parts;
  return joined(
    [1],
    vector(
      3,
      "message",
      u16(legacyVersion),
      new Uint8Array(32).fill(0xaa),
      vector(1, "session id", sessionId),
      vector(2, "cipher suites", parts.suites ?? u16(0x1301)),
      vector(1, "compression methods", parts.compressions ?? [0]),
      extensions === null ? [] : vector(2, "extensions", ...extensions),
    ),
  );
}

/** One handshake record. */
export const record = (...parts: Part[]) => joined([22, 3, 1], vector(2, "record", ...parts));

/** The message in one record. */
export const hello = (parts: HelloParts = {}) => Uint8Array.from(record(message(parts)).bytes);

/** The handshake bytes of a hello, without the headers of its records. */
export function unwrap(bytes: Uint8Array): Uint8Array {
  const payloads: Uint8Array[] = [];
  for (let at = 0, next; at < bytes.length; at = next) {
    next = at + 5 + bytes[at + 3]! * 256 + bytes[at + 4]!;
    payloads.push(bytes.subarray(at + 5, next));
  }
  return new Uint8Array(Buffer.concat(payloads));
}

/** Handshake bytes in records, each with a payload of `size()` bytes. */
export function wrap(handshake: Uint8Array, size: () => number): Uint8Array {
  const records: Uint8Array[] = [];
  for (let at = 0, next; at < handshake.length; at = next) {
    next = Math.min(at + size(), handshake.length);
    records.push(Uint8Array.from([22, 3, 1, (next - at) >> 8, (next - at) & 0xff]), handshake.subarray(at, next));
  }
  return new Uint8Array(Buffer.concat(records));
}
