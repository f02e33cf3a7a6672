import { expect, test } from "vitest";
import { RELEASE_FROM_BYTES } from "../../src/core/byte-queue.ts";
import { TlsObserver } from "../../src/worker/tls-observer.ts";

const host = {
  crash: (error: unknown): never => {
    throw error;
  },
};

/** A TLS 1.3 record with this many bytes inside; its header, the type and the tag are added. */
function record(bytes: number): Uint8Array {
  const length = bytes + 17;
  const wire = new Uint8Array(5 + length);
  wire.set([23, 3, 3, length >> 8, length & 0xff]);
  return wire;
}
const closeNotify = record(2);

test("distinguishes a truncation from an orderly end by the delivered data, for a client and for a backend", () => {
  for (const hear of [
    (observer: TlsObserver, chunk: Uint8Array) => observer.clientData(chunk),
    (observer: TlsObserver, chunk: Uint8Array) => observer.backendData(null, chunk),
  ]) {
    const floats = new Float64Array(8);
    const observer = new TlsObserver(host, floats, 3);
    hear(observer, record(100));
    floats[3] = 100;
    expect(observer.cut).toBe(true);
    hear(observer, closeNotify.slice(0, 7));
    expect(observer.cut).toBe(true);
    hear(observer, closeNotify.slice(7));
    expect(observer.cut).toBe(false);
  }
});

test("treats two bytes of data as data, although the record looks like close_notify", () => {
  const floats = new Float64Array(1);
  const observer = new TlsObserver(host, floats, 0);
  observer.clientData(record(2));
  floats[0] = 2;
  expect(observer.cut).toBe(true);
});

test("counts only bytes that the plain socket had read before", () => {
  const observer = new TlsObserver(host, new Float64Array(1), 0);
  observer.push(closeNotify.slice(0, 3));
  observer.clientData(closeNotify.slice(3));
  expect(observer.cut).toBe(false);
});

test("frees the memory of large chunks, and keeps no small one", () => {
  const observer = new TlsObserver(host, new Float64Array(1), 0);
  const [small, large] = [record(100), record(RELEASE_FROM_BYTES)];
  const { length } = small;
  for (const chunk of [small, large]) observer.clientData(chunk);
  expect([small.length, large.length]).toEqual([length, 0]);
});
