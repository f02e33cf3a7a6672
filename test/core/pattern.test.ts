// The patterns mean the same as JavaScript's regular expressions: the same answers for the same texts, but in linear time.
import { describe, expect, test } from "vitest";
import { compilePattern, PATTERN_SIZE_MAX, PatternSearch, type Pattern } from "../../src/core/pattern.ts";
import { forSeeds, type Random } from "../support/random.ts";

function compiled(source: string): Pattern {
  const pattern = compilePattern(source);
  if ("bad" in pattern) throw new Error(`${source}: ${pattern.bad}`);
  return pattern;
}

const finds = (source: string, text: string): boolean => new PatternSearch(compiled(source)).push(text);

/** JavaScript's answer. Null = its engine gave up: JavaScriptCore reports "no match" after too many steps (seen with Bun 1.4.5). */
function answerOfJavaScript(source: string, text: string): boolean | null {
  if (new RegExp(source, "m").test(text)) return true;
  // The added alternative matches at the end of every text, so only an engine that gave up finds nothing.
  return new RegExp(`${source}|(?![^])`, "m").test(text) ? false : null;
}

/** Compares the whole text, and the text in parts, with JavaScript's answer. */
function expectSame(source: string, text: string): void {
  const whole = finds(source, text);
  const says = `${JSON.stringify(source)} in ${JSON.stringify(text)}`;
  expect(whole, says).toBe(answerOfJavaScript(source, text) ?? whole);
  const search = new PatternSearch(compiled(source));
  let found = false;
  for (const char of text) found = search.push(char) || found;
  // The end of each part counts as the end of a line, so parts can contain a match that the whole text does not contain.
  if (whole) expect(found || search.push(""), says).toBe(true);
}

describe("a pattern", () => {
  test.each([
    ["role:(master|primary)", "x\r\nrole:primary\r\n"],
    ["^role:master$", "a\r\nrole:master\r\nb"],
    ["^role:master$", "role:master2"],
    ["a.c", "a\nc"],
    ["[^a-c\\d]x", "9x dx"],
    ["[\\w-]+", "-"],
    ["[a\\-z]", "m"],
    ["[]-a]", "^"],
    ["[]", "a"],
    ["[^]", "\n"],
    ["\\x41\\u00e9\\cA\\0\\t", "Aé\x01\0\t"],
    ["\\bcat\\b", "concat cat"],
    ["\\Bcat", "concat"],
    ["a{2,3}b", "caab"],
    ["a{2}b", "ab"],
    ["a{0}b", "b"],
    ["x{,3}", "x{,3}"],
    ["a{", "a{"],
    ["(?:a|b|)+?c", "abac"],
    ["(?<name>x)y", "xy"],
    ["", ""],
    ["(a*)*b", "aaac"],
    ["(?:a?b??)+$", "abx"],
    ["\\.\\/\\$\\]}", "./$]}"],
    ["[\\s\\S]", "\u2028"],
    ["^$", "a\n\nb"],
    ["[\\b]", "\b"],
    ["[\\d-x]", "-"],
  ])("%j answers for %j as JavaScript does", (source, text) => {
    expectSame(source, text);
    expectSame(source, `${text}${text}`);
    expectSame(source, "");
  });

  test("random ones answer as JavaScript does", () => {
    forSeeds(3000, (random) => {
      const source = randomPattern(random, 3);
      if ("bad" in compilePattern(source)) return;
      for (let i = 0; i < 5; i++) {
        const text = Array.from({ length: random.below(12) }, () => random.pick([..."aabbc01_ \n\r-"])).join("");
        expectSame(source, text);
      }
    });
  });

  test.each([
    ["(", "missing )"],
    ["a**", "nothing to repeat"],
    ["a(?=b)", "(?=b is not supported: neither look-around nor flags"],
    ["(?<!a)b", "(?<! is not supported: neither look-around nor flags"],
    ["(a)\\1", "\\1 is not supported here"],
    ["a{201}", "{201} repeats more than 200 times"],
    ["(?:a{200}){200}", "it is too large"],
  ])("%j is refused", (source, why) => {
    expect(compilePattern(source)).toEqual({ bad: expect.stringContaining(why) });
  });

  test("has a limit", () => {
    expect("bad" in compilePattern("a".repeat(PATTERN_SIZE_MAX - 1))).toBe(false);
    expect(compilePattern("a".repeat(PATTERN_SIZE_MAX))).toEqual({ bad: "it is too large" });
  });

  test("is found where JavaScript's engine gives up", () => {
    const [source, text] = ["((|[^a]{0,}[a-c_]{0,}){1,2}\\w?\\w{0,}){0,}b+|()*(|a\\d{2}(b|))?", "a0aa111 _\r"];
    expect(finds(source, text)).toBe(true);
  });

  test("takes linear time, also where JavaScript's engine backtracks", () => {
    const text = "a".repeat(65_536);
    for (const source of ["a*a*a*b", "(a+)+$b", "(a|a)*b", "(?:a|aa)+$x"]) expect(finds(source, text)).toBe(false);
  });
});

function randomPattern(random: Random, depth: number): string {
  const atom = (): string => {
    if (depth > 0 && random.oneIn(3)) return `(${random.pick(["", "?:"])}${randomPattern(random, depth - 1)})`;
    return random.pick([
      "a",
      "b",
      "c",
      "0",
      ".",
      "\\d",
      "\\w",
      "\\s",
      "\\W",
      "[ab]",
      "[^a]",
      "[a-c_]",
      "\\n",
      "\\b",
      "^",
      "$",
      "\\B",
    ]);
  };
  const part = (): string => {
    const text = atom();
    return /[$^]$|\\[bB]$/.test(text)
      ? text
      : text + random.pick(["", "", "", "*", "+", "?", "{2}", "{1,2}", "{0,}", "*?"]);
  };
  const sequence = (): string => Array.from({ length: random.below(4) }, part).join("");
  return Array.from({ length: random.between(1, 2) }, sequence).join("|");
}
