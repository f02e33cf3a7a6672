import { parse } from "smol-toml";
import { describe, expect, it } from "vitest";
import { FIRST_PART, locator, placesOf } from "../../src/config/locate.ts";
import type { KeyPath } from "../../src/config/problem.ts";
import { threadCpuMs } from "../support/proc.ts";

/** "line:column" of each path. */
function places(text: string, ...paths: KeyPath[]): string[] {
  parse(text);
  const locate = locator(text);
  return paths.map((path) => {
    const { line, column } = locate(path);
    return `${line}:${column}`;
  });
}

describe("the place of a key", () => {
  it("is the key, below its table's header", () => {
    const text = 'a = 1\n[t]\n  b = 2\n\n[t.u]\n"c d" = 3\n';
    expect(places(text, ["a"], ["t"], ["t", "b"], ["t", "u"], ["t", "u", "c d"])).toEqual([
      "1:1",
      "2:2",
      "3:3",
      "5:4",
      "6:1",
    ]);
  });

  it("is found in dotted, quoted and spaced keys", () => {
    const text = 'a.b . "c".\'d\' = 1\na.b."\\u0065" = 2\n';
    expect(places(text, ["a"], ["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d"], ["a", "b", "e"])).toEqual([
      "1:1",
      "1:3",
      "1:7",
      "1:11",
      "2:5",
    ]);
  });

  it("is found in inline tables and arrays, over many lines", () => {
    const text = 'x = [\n  "a, ]", # not ] this\n  { y = 1, z.w = [ 1, [2,3] ] },\n]\n';
    expect(places(text, ["x", 0], ["x", 1], ["x", 1, "y"], ["x", 1, "z", "w"], ["x", 1, "z", "w", 1, 1])).toEqual([
      "2:3",
      "3:3",
      "3:5",
      "3:14",
      "3:26",
    ]);
  });

  it("finds the right element of an array of tables", () => {
    const text = "[[a]]\nx = 1\n[[a]]\nx = 2\n[a.sub]\ny = 3\n[[a.more]]\nz = 1\n[[a.more]]\nz = 2\n";
    expect(
      places(text, ["a", 0, "x"], ["a", 1], ["a", 1, "x"], ["a", 1, "sub", "y"], ["a", 1, "more", 1, "z"]),
    ).toEqual(["2:1", "3:3", "4:1", "6:1", "10:1"]);
  });

  it("is not confused by strings that look like TOML", () => {
    const text = 'a = """\n[t]\nb = 1\n\\""" """\nc = \'\'\'\n[u] """\'\'\'\'\'\nd = "\\\\"\ne = \'\\\'\nf = 1\n';
    expect(places(text, ["c"], ["d"], ["e"], ["f"])).toEqual(["5:1", "7:1", "8:1", "9:1"]);
  });

  it("is a table's own header if it comes after those of its subtables", () => {
    expect(places("[a.b]\nx = 1\n[a]\ny = 1\n", ["a"], ["a", "b"])).toEqual(["3:2", "1:4"]);
  });

  it("is that of the nearest existing parent if the key is missing", () => {
    expect(places("\n[a]\nb = {}\n", ["a", "b", "c", 3], ["a", "x"], ["y"])).toEqual(["3:1", "2:2", "1:1"]);
  });

  it("counts lines that end in CR LF, and finds dates and numbers", () => {
    expect(places("a = 1979-05-27 07:32:00\r\nb = +1_000.5e-3\r\nc = true", ["b"], ["c"])).toEqual(["2:1", "3:1"]);
  });
});

it("takes time in proportion to the text", () => {
  const text = Array.from({ length: 20_000 }, (_, i) => `[t${i}]\n# comment\nk = [${i}, { x = "y" }]\n`).join("");
  const started = threadCpuMs();
  expect(locator(text)(["t19999", "k", 1, "x"])).toEqual({ line: 60_000, column: 15 });
  expect(threadCpuMs() - started).toBeLessThan(15_000);
});

describe("the places in a long text", () => {
  const filler = "# a comment that fills the text\n".repeat(Math.ceil(FIRST_PART / 32));
  const text = `a = 1\n[t]\nb = 2\n${filler}[u]\nc = 3\n`;
  const lines = (paths: KeyPath[], whole = text) => placesOf(paths, whole, parse(whole)).map(({ line }) => line);

  it("are those of the whole text, for keys in its first part and for missing ones", () => {
    const paths = [["a"], ["t", "b"], ["t", "missing"]];
    expect(lines(paths)).toEqual(paths.map((path) => locator(text)(path).line));
    expect(lines(paths)).toEqual([1, 3, 2]);
  });

  it("are those of the whole text, for keys after it", () => {
    expect(lines([["u", "c"], ["a"]])).toEqual([text.split("\n").length - 1, 1]);
  });

  it("are those of the whole text if the first part ends within a value", () => {
    const cut = `a = 1\nb = [\n${"  1,\n".repeat(FIRST_PART / 4)}]\nc = 1\n`;
    expect(lines([["a"], ["c"]], cut)).toEqual([1, cut.split("\n").length - 1]);
  });
});
