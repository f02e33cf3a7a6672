import { describe, expect, test } from "vitest";
import { ALERTS, fatalAlert, RecordWalk } from "../../src/wire/tls-records.ts";

const HANDSHAKE = 22;
const CHANGE_CIPHER_SPEC = 20;
const ALERT = 21;
const DATA = 23;

/** A record in its wire format, and the number of data bytes in it. */
interface Sealed {
  wire: Uint8Array;
  data: number;
}

const record = (type: number, payload: number, data = 0): Sealed => {
  const wire = new Uint8Array(5 + payload).fill(0xa5);
  wire.set([type, 3, 3, payload >> 8, payload & 0xff]);
  return { wire, data };
};
/** TLS 1.3 encrypts type and tag too, 17 bytes. */
const data13 = (bytes: number): Sealed => record(DATA, bytes + 17, bytes);
const hidden13 = (bytes: number): Sealed => record(DATA, bytes + 17);
const closeNotify13 = hidden13(2);
/** TLS 1.2 with AES-GCM: a nonce of 8 bytes and a tag of 16. */
const data12 = (bytes: number): Sealed => record(DATA, bytes + 24, bytes);
const closeNotify12 = record(ALERT, 26);

const finished13 = [record(CHANGE_CIPHER_SPEC, 1), hidden13(52)];
const finished12 = [record(HANDSHAKE, 33), record(CHANGE_CIPHER_SPEC, 1), record(HANDSHAKE, 40)];

/** The result of a walk over the records in chunks that end at these places, each decrypted before the next. */
function orderly(records: readonly Sealed[], ends: readonly number[] = [], cutOff = 0): boolean {
  const wire = records.flatMap((sealed) => [...sealed.wire]);
  wire.length -= cutOff;
  const walk = new RecordWalk();
  const deliveredBy = (end: number): number => {
    let delivered = 0;
    let at = 0;
    for (const sealed of records) {
      at += sealed.wire.length;
      if (at <= end) delivered += sealed.data;
    }
    return delivered;
  };
  let from = 0;
  for (const end of [...ends.filter((place) => place < wire.length), wire.length]) {
    walk.push(Uint8Array.from(wire.slice(from, end)), deliveredBy(from));
    from = end;
  }
  return walk.closesOrderly(deliveredBy(wire.length));
}

const streams: [string, Sealed[], boolean][] = [
  ["TLS 1.2, nothing but the handshake", finished12, false],
  ["TLS 1.2, data", [...finished12, data12(100), data12(2)], false],
  ["TLS 1.2, data and close_notify", [...finished12, data12(100), closeNotify12], true],
  ["TLS 1.2, close_notify at once", [...finished12, closeNotify12], true],
  ["TLS 1.3, nothing but the handshake", finished13, false],
  ["TLS 1.3, data", [...finished13, data13(1), data13(100)], false],
  ["TLS 1.3, data and close_notify", [...finished13, data13(100), closeNotify13], true],
  ["TLS 1.3, close_notify at once", [...finished13, closeNotify13], true],
  ["TLS 1.3, data as long as an alert and close_notify", [...finished13, data13(2), data13(2), closeNotify13], true],
  ["TLS 1.3, a key update and close_notify", [...finished13, data13(9), hidden13(5), closeNotify13], true],
  ["TLS 1.3, a key update", [...finished13, data13(9), hidden13(5)], false],
  ["TLS 1.3, a full record and close_notify", [...finished13, data13(16_384), closeNotify13], true],
];

describe("TLS records, without decryption", () => {
  test.each(streams)("%s", (_, records, expected) => {
    expect(orderly(records)).toBe(expected);
  });

  test("are followed alike wherever they are split", () => {
    for (const [name, records, expected] of streams) {
      const length = records.reduce((sum, { wire }) => sum + wire.length, 0);
      if (length > 1000) continue;
      for (let first = 1; first < length; first++)
        expect([name, first, orderly(records, [first])]).toEqual([name, first, expected]);
      expect(
        orderly(
          records,
          Array.from({ length }, (_, i) => i),
        ),
      ).toBe(expected);
    }
  });

  test("distinguish data with the length of an alert from an alert, after the handshake", () => {
    const records = [...finished13, data13(2), data13(2)];
    const handshake = finished13.reduce((sum, { wire }) => sum + wire.length, 0);
    expect(orderly(records, [handshake])).toBe(false);
    expect(orderly([...records, closeNotify13], [handshake])).toBe(true);
  });

  test("report an incomplete record as a truncation", () => {
    for (const close of [closeNotify12, closeNotify13]) {
      for (let cutOff = 1; cutOff < close.wire.length; cutOff++)
        expect([cutOff, orderly([...finished13, data13(5), close], [], cutOff)]).toEqual([cutOff, false]);
    }
  });
});

test("a fatal alert is a record with two bytes, the level and the description", () => {
  expect([...fatalAlert(ALERTS.unrecognizedName)]).toEqual([21, 3, 3, 0, 2, 2, 112]);
});
