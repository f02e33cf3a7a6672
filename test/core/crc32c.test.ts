import { describe, expect, test } from "vitest";
import { crc32c } from "../../src/core/crc32c.ts";

const ascii = (text: string) => new TextEncoder().encode(text);
const hex = (text: string) => new Uint8Array(Buffer.from(text.replaceAll(" ", ""), "hex"));

// RFC 3720 appendix B.4 gives the checksums in the order of their bytes on the wire, the low one first.
const READ_PDU =
  "01 c0 00 00 00 00 00 00 00 00 00 00 00 00 00 00 14 00 00 00 00 00 04 00 " +
  "00 00 00 14 00 00 00 18 28 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00";

describe("CRC32C", () => {
  test.each([
    ["32 zeros", new Uint8Array(32), 0x8a9136aa],
    ["32 ones", new Uint8Array(32).fill(0xff), 0x62a8ab43],
    ["0 to 31", Uint8Array.from({ length: 32 }, (_, i) => i), 0x46dd794e],
    ["31 to 0", Uint8Array.from({ length: 32 }, (_, i) => 31 - i), 0x113fdb5c],
    ["an iSCSI read command", hex(READ_PDU), 0xd9963a56],
    ["the usual check of a CRC", ascii("123456789"), 0xe3069283],
    ["nothing", new Uint8Array(0), 0],
  ])("of %s is that of the standard", (_what, bytes, checksum) => {
    expect(crc32c(bytes)).toBe(checksum);
  });

  test("is the same in pieces as in one", () => {
    const bytes = hex(READ_PDU);
    for (let split = 0; split <= bytes.length; split++) {
      expect(crc32c(bytes.subarray(split), crc32c(bytes.subarray(0, split)))).toBe(0xd9963a56);
    }
  });
});
