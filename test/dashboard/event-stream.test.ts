import { expect, test } from "vitest";
import { EventStreamParser, type StreamEvent } from "../../src/dashboard/event-stream.ts";
import { forSeeds } from "../support/random.ts";

const STREAM =
  ': a comment\n\nevent: snapshot\ndata: {"a":1}\n\ndata: one\r\ndata:two\r\n\r\nevent: only\n\nid: 7\ndata\n\nevent: change\ndata: x\n\n';
const EVENTS: StreamEvent[] = [
  { name: "snapshot", data: '{"a":1}' },
  { name: "message", data: "one\ntwo" },
  { name: "message", data: "" },
  { name: "change", data: "x" },
];

const parsed = (...parts: string[]): StreamEvent[] => {
  const parser = new EventStreamParser();
  return parts.flatMap((part) => parser.push(part));
};

test("events are parsed as the standard says", () => {
  expect(parsed(STREAM)).toEqual(EVENTS);
});

test("the same events are parsed wherever the text is cut", () => {
  for (let at = 0; at <= STREAM.length; at++) {
    expect(parsed(STREAM.slice(0, at), STREAM.slice(at)), `cut at ${at}`).toEqual(EVENTS);
  }
  expect(parsed(...STREAM)).toEqual(EVENTS);
});

test("an event is not reported before its empty line", () => {
  expect(parsed("data: x\n")).toEqual([]);
});

const PIECES = ["data", "event", ":", " ", "\n", "\r", "\r\n", "x", "\u00e9"];

test("random text gives the same events in one piece and in many", () => {
  forSeeds(2000, (random) => {
    const text = Array.from({ length: 30 }, () => random.pick(PIECES)).join("");
    const cut = random.below(text.length);
    expect(parsed(text.slice(0, cut), text.slice(cut)), JSON.stringify(text)).toEqual(parsed(text));
  });
});
