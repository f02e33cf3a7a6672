import { describe, expect, test } from "vitest";
import { Records } from "../../bench/load/records.ts";

/** A TLS 1.3 record with this many application bytes. */
function record(bytes: number, type = 23): Uint8Array {
  const length = bytes + 17;
  return Uint8Array.from([type, 3, 3, length >> 8, length & 255, ...new Uint8Array(length).fill(type)]);
}

describe("Records", () => {
  const stream = Uint8Array.from([...record(1), ...record(700), ...record(0), ...record(300)]);

  test("counts the application's bytes of every record, wherever the chunks are split", () => {
    for (let split = 0; split <= stream.length; split++) {
      const records = new Records();
      const [first, second] = [stream.subarray(0, split), stream.subarray(split)];
      expect(records.payload(first, first.length) + records.payload(second, second.length)).toBe(1001);
    }
  });

  test("counts the same when each byte comes alone", () => {
    const records = new Records();
    let bytes = 0;
    for (const byte of stream) bytes += records.payload(Uint8Array.of(byte), 1);
    expect(bytes).toBe(1001);
  });

  test("reads only the given part of a chunk", () => {
    expect(new Records().payload(stream, record(1).length)).toBe(1);
  });

  test("refuses records that are not an answer, such as an unencrypted alert", () => {
    expect(() => new Records().payload(record(2, 21), 5)).toThrow("type 21");
  });
});
