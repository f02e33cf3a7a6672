// The limits of the export to OpenTelemetry, with a receiver over HTTP that stalls.
import { expect, test } from "vitest";
import { Followers } from "../../src/supervisor/followers.ts";
import { Otel, OTEL_PENDING_MAX } from "../../src/supervisor/otel.ts";
import { eventually } from "../support/eventually.ts";
import { OtlpReceiver } from "../support/otlp.ts";
import { recordingLog } from "../support/recording-log.ts";
import { filledSnapshot } from "../support/snapshot.ts";

function exportTo(endpoint: string) {
  const { log, said } = recordingLog();
  const followers = new Followers(() => undefined);
  const otel = new Otel({ version: "1.2.3", log, followers, snapshot: filledSnapshot });
  otel.configure({ endpoint, interval: 3_600_000, headers: {}, ca_pem: null }, 1000);
  const lost = () => otel.status!.log_records_lost;
  const sent = () => otel.status!.exports.find(({ signal }) => signal === "logs")!.success;
  return { said, followers, otel, lost, sent };
}

const line = (id: number): string =>
  `{"time":"2026-11-22T19:47:00.084Z","id":${id},"listener":"web","client":"192.0.2.7:1","end":"eof","end_by":"client"}\n`;
const linesOf = (from: number, count: number): string =>
  Array.from({ length: count }, (_, i) => line(from + i)).join("");

test("lines above the limit are lost and counted while the receiver stalls, and the others come in requests of at most 1,000", async () => {
  using receiver = await OtlpReceiver.start();
  const stalled = Promise.withResolvers<void>();
  receiver.hold = stalled.promise;
  const { followers, otel, lost } = exportTo(receiver.url);
  let taken = 0;
  while (lost() === 0) {
    followers.take(1, linesOf(taken, 500), 0);
    taken += 500;
    await new Promise((resolve) => setImmediate(resolve));
  }
  const kept = taken - lost();
  expect(kept * line(0).length).toBeLessThanOrEqual(OTEL_PENDING_MAX * 1.05);
  expect(kept * line(0).length).toBeGreaterThan(OTEL_PENDING_MAX * 0.9);
  stalled.resolve();
  const received = () => receiver.lineCounts().reduce((sum, count) => sum + count, 0);
  await eventually("all lines that were kept", () => received() === kept, 60_000);
  expect(Math.max(...receiver.lineCounts())).toBe(1000);
  expect(receiver.lines().map(({ id }) => id)).toEqual(Array.from({ length: kept }, (_, i) => i));
  // There is room for as many again as were refused at once, and what a worker has dropped is counted too.
  const before = lost();
  followers.take(1, linesOf(taken, 500), 3);
  await eventually("500 more", () => received() === kept + 500);
  expect(lost()).toBe(before + 3);
  await otel.stop(1000);
});

test("a receiver that never answers holds the end for the given time, and the lines for it are counted as lost", async () => {
  using receiver = await OtlpReceiver.start();
  receiver.hold = new Promise(() => undefined);
  const { followers, otel, lost } = exportTo(receiver.url);
  followers.take(1, linesOf(0, 1500), 0);
  await eventually("the first request", () => receiver.exports.length > 0);
  await otel.stop(50);
  expect(lost()).toBe(1500);
  expect(followers.list()).toEqual([]);
});

test("an answer without an end does no harm", async () => {
  using receiver = await OtlpReceiver.start();
  receiver.answer = () => ({ status: 200, body: "x".repeat(20_000_000) });
  const { followers, otel, sent, lost } = exportTo(receiver.url);
  followers.take(1, linesOf(0, 1000), 0);
  await eventually("a success", () => sent() === 1);
  expect(lost()).toBe(0);
  await otel.stop(1000);
});
