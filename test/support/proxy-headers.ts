// PROXY headers of version 2, built from the standard's text and without code of the product, so that a mistake there is found.

export interface HeaderV2 {
  command?: "proxy" | "local";
  /** Family and protocol in one byte: 0x11 TCP4, 0x21 TCP6, 0x31 UNIX, 0x00 UNSPEC. */
  family?: number;
  /** Both ends in the form of the header. */
  addresses?: Uint8Array;
  tlvs?: readonly Uint8Array[];
  /** Adds a CRC32C: the right one, or this one. */
  crc?: true | number;
}

export function headerV2(given: HeaderV2 = {}): Buffer {
  const { command = "proxy", family = 0x11, addresses = Buffer.alloc(0), tlvs = [], crc } = given;
  const parts = [addresses, ...tlvs];
  if (crc !== undefined) parts.push(tlv(0x03, Buffer.alloc(4)));
  const block = Buffer.concat(parts);
  const header = Buffer.concat([Buffer.from("\r\n\r\n\0\r\nQUIT\n\0\0\0\0", "latin1"), block]);
  header[12] = 0x20 + (command === "proxy" ? 1 : 0);
  header[13] = family;
  header.writeUInt16BE(block.length, 14);
  if (crc !== undefined) header.writeUInt32BE(crc === true ? crc32c(header) : crc, header.length - 4);
  return header;
}

/** "198.51.100.7:4711", "192.0.2.1:443" as TCP4. */
export function addresses4(source: string, destination: string): Buffer {
  const ends = [source, destination].map((end) => end.split(":"));
  return Buffer.concat([
    ...ends.map(([address = ""]) => Buffer.from(address.split(".").map(Number))),
    ...ends.map(([, port]) => u16(Number(port))),
  ]);
}

/** Sixteen groups of bytes written out in full, "20010db8…", and the ports. */
export function addresses6(source: string, destination: string, ports: readonly [number, number]): Buffer {
  return Buffer.concat([Buffer.from(source, "hex"), Buffer.from(destination, "hex"), ...ports.map(u16)]);
}

export function tlv(type: number, value: Uint8Array | string): Buffer {
  const bytes = typeof value === "string" ? Buffer.from(value, "latin1") : value;
  return Buffer.concat([Uint8Array.of(type), u16(bytes.length), bytes]);
}

function u16(value: number): Buffer {
  return Buffer.from([value >> 8, value & 255]);
}

// Bit by bit, polynomial 0x1EDC6F41 reflected.
function crc32c(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return ~crc >>> 0;
}
