import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { depthMax } from "../../src/config/syntax.ts";
import { readToml } from "../../src/config/toml.ts";

/** The problem, as "line:column message". */
function told(text: string): string {
  const read = readToml(text);
  return read.is === "tree" ? "fine" : `${read.at.line}:${read.at.column} ${read.message}`;
}

describe("only TOML 1.0", () => {
  it.each([
    [
      "a newline in an inline table",
      "a = { b = 1,\n c = 2 }",
      "2:2 is not valid TOML: an inline table must be on one line",
    ],
    ["a newline behind a balanced table", "a = { b = {},\n c = {} }", "2:2 is not valid TOML: an inline table must be"],
    [
      "a newline where strings and comments have braces",
      "a = { b = '}', # }\n c = 1 }",
      "2:2 is not valid TOML: an inl",
    ],
    [
      "a comma at the end of an inline table",
      "a = { b = 1, }",
      "1:14 is not valid TOML: TOML 1.0 allows no comma after",
    ],
    ["the escape \\x", 'a = "\\x41"', "1:7 is not valid TOML: TOML 1.0 does not have this escape sequence"],
    ["the escape \\e", 'a = """\n\\e"""', "2:2 is not valid TOML: TOML 1.0 does not have this escape sequence"],
    ["a time without seconds", "a = 07:32", "1:10 is not valid TOML: unexpected character"],
  ])("refuses %s", (_what, text, words) => {
    expect(told(text)).toContain(words);
  });

  it.each(["a = { b = [\n1, # }\n], c = '{' }", "a = [\n{ b = 1 }, # {\n]", 'a = "\\u0041"', "a = 07:32:00", "a = {}"])(
    "accepts %j",
    (text) => {
      expect(told(text)).toBe("fine");
    },
  );
});

describe("a duplicate key", () => {
  it.each([
    ["in a table", "[t]\na = 1\na = 2", "3:1", "a is already defined in line 2, column 1"],
    ["quoted once", "a = 1\n'a' = 2", "2:1", "'a' is already defined in line 1, column 1"],
    ["that is a table's name", "[a]\n[b]\n[a]", "3:2", "a is already defined in line 1, column 2"],
    ["below a value", "a = 1\na.b = 2", "2:1", "a.b is already defined in line 1, column 1"],
    [
      "in an inline table of an array",
      "a = [{ b = 1 }, { b = 1, b = 2 }]",
      "1:26",
      "b is already defined in line 1, column 19",
    ],
    [
      "in the last of several tables of an array",
      "[[a]]\nb = 1\n[[a]]\nb = 1\nb = 2",
      "5:1",
      "b is already defined in line 4, column 1",
    ],
    ["before another duplicate", "a = 1\nb = 1\nb = 2\na = 2", "3:1", "b is already defined in line 2, column 1"],
    ["that makes a table of an array", "[[a]]\n[a]", "2:2", "a is already defined in line 1, column 3"],
  ])("is reported with both positions: %s", (_what, text, place, words) => {
    expect(told(text)).toBe(`${place} is not valid TOML: duplicate key: ${words}`);
  });
});

describe("a line of some megabytes", () => {
  // Both took quadratic time in the length of the line: minutes instead of parts of a second.
  it("is parsed in linear time", () => {
    expect(told(`deny = [${'"10.0.0.1", '.repeat(300_000)}]`)).toBe("fine");
    expect(told(`${" ".repeat(3_000_000)}a${" ".repeat(3_000_000)}= 1`)).toBe("fine");
  });
});

describe("the depth", () => {
  const words = `is not valid TOML: tables and arrays are nested more than ${depthMax} levels deep`;
  const dotted = (parts: number) => Array.from({ length: parts }, () => "a").join(".");

  it("is at most that of depthMax, in keys, headers, arrays and inline tables alike", () => {
    expect(told(`${dotted(depthMax + 1)} = 1`)).toBe(`fine`);
    expect(told(`${dotted(depthMax + 2)} = 1`)).toBe(`1:1 ${words}`);
    expect(told(`\n [${dotted(depthMax)}]`)).toBe(`fine`);
    expect(told(`\n [${dotted(depthMax + 1)}]`)).toBe(`2:3 ${words}`);
    expect(told(`a = ${"[".repeat(depthMax)}${"]".repeat(depthMax)}`)).toBe(`fine`);
    expect(told(`a = ${"[".repeat(depthMax + 1)}${"]".repeat(depthMax + 1)}`)).toContain(words);
    expect(told(`a = ${"{ b = ".repeat(depthMax + 1)}1${" }".repeat(depthMax + 1)}`)).toContain(words);
    expect(told(`[${dotted(20)}]\n${dotted(20)} = 1`)).toBe(`1:1 ${words}`);
  });

  it("does not count the dots in a text", () => {
    expect(told(`a = """\n${dotted(50)} = 1\n"""`)).toBe("fine");
    expect(told(`a = "${dotted(50)}" # ${dotted(50)}`)).toBe("fine");
  });

  it("of a key of 8 million parts is refused in little memory", () => {
    // Not by the numbers that the parent gets, which include the parent's own memory at the fork.
    const script = `
      const { readToml } = await import(${JSON.stringify(join(import.meta.dirname, "../../src/config/toml.ts"))});
      console.log(readToml("a" + ".a".repeat(8_000_000) + " = 1").message);
      console.log(/VmHWM:\\s*(\\d+) kB/.exec(await Bun.file("/proc/self/status").text())[1]);`;
    const [message, peakKiB] = Bun.spawnSync([process.execPath, "-e", script]).stdout.toString().split("\n");
    expect(message).toBe(words);
    expect(Number(peakKiB) / 1024).toBeLessThan(400);
  });
});
