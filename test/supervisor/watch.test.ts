import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { contentOf } from "../../src/config/files.ts";
import { watchFiles, type Watch, type WatchOptions } from "../../src/supervisor/watch.ts";
import { eventually } from "../support/eventually.ts";

let folder: string;
let watch: Watch | null = null;
/** The first file's content at each call of onChange. */
let heard: string[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "lb-watch-"));
  heard = [];
});

afterEach(() => {
  watch?.stop();
  watch = null;
  rmSync(folder, { recursive: true, force: true });
});

/** Polls so rarely that events are what detects changes, by default. */
function start(files: () => string[], options: WatchOptions = { debounceMs: 20, pollMs: 60_000 }): void {
  watch = watchFiles(
    files,
    () => {
      try {
        heard.push(readFileSync(files()[0]!, "utf8"));
      } catch {
        heard.push("(missing)");
      }
    },
    options,
  );
}

const hears = (content: string) => eventually(`a change to "${content}"`, () => heard.at(-1) === content);

describe("a watch reports", () => {
  test("a file that is written in place", async () => {
    const file = join(folder, "lb.toml");
    writeFileSync(file, "one");
    start(() => [file]);
    writeFileSync(file, "two");
    await hears("two");
    // The same length, within the same tick of the file system's clock.
    writeFileSync(file, "six");
    await hears("six");
    expect(heard).toEqual(["two", "six"]);
  });

  test("an editor that renames a new file over the old one, repeatedly", async () => {
    const file = join(folder, "lb.toml");
    writeFileSync(file, "0");
    start(() => [file]);
    for (const content of ["1", "2", "3"]) {
      writeFileSync(`${file}~`, content);
      renameSync(`${file}~`, file);
      await hears(content);
    }
    expect(heard).toEqual(["1", "2", "3"]);
  });

  test("Kubernetes, which swaps the symlink ..data to another folder", async () => {
    const publish = (version: string, content: string) => {
      mkdirSync(join(folder, `..${version}`));
      writeFileSync(join(folder, `..${version}`, "lb.toml"), content);
      symlinkSync(`..${version}`, join(folder, "..data_tmp"));
      renameSync(join(folder, "..data_tmp"), join(folder, "..data"));
    };
    publish("2026_01", "one");
    const file = join(folder, "lb.toml");
    symlinkSync("..data/lb.toml", file);
    start(() => [file]);
    for (const [version, content] of [
      ["2026_02", "two"],
      ["2026_03", "three"],
    ] as const) {
      publish(version, content);
      await hears(content);
    }
    expect(heard).toEqual(["two", "three"]);
  });

  test("a change of the file that a symlink in another folder leads to", async () => {
    mkdirSync(join(folder, "real"));
    mkdirSync(join(folder, "links"));
    const file = join(folder, "links", "lb.toml");
    writeFileSync(join(folder, "real", "lb.toml"), "one");
    symlinkSync("../real/lb.toml", file);
    start(() => [file]);
    writeFileSync(join(folder, "real", "lb.toml"), "two");
    await hears("two");
  });

  test("a file that is deleted and created again, but not that it is missing meanwhile", async () => {
    const file = join(folder, "lb.toml");
    writeFileSync(file, "one");
    start(() => [file], { debounceMs: 5, pollMs: 10 });
    unlinkSync(file);
    await looks();
    expect(heard).toEqual([]);
    writeFileSync(file, "two");
    await hears("two");
    expect(heard).toEqual(["two"]);
  });

  test("a whole folder that is removed and created again", async () => {
    const inner = join(folder, "conf");
    const file = join(inner, "lb.toml");
    mkdirSync(inner);
    writeFileSync(file, "one");
    start(() => [file], { debounceMs: 5, pollMs: 10 });
    rmSync(inner, { recursive: true });
    mkdirSync(inner);
    writeFileSync(file, "two");
    await hears("two");
  });

  test("by polling alone, if the file system reports nothing", async () => {
    // A symlink within the path: swapping it raises no event in any watched folder.
    for (const version of ["1", "2"]) {
      mkdirSync(join(folder, "releases", version), { recursive: true });
      writeFileSync(join(folder, "releases", version, "lb.toml"), version);
    }
    mkdirSync(join(folder, "site"));
    symlinkSync("../releases/1", join(folder, "site", "current"));
    const file = join(folder, "site", "current", "lb.toml");
    start(() => [file], { debounceMs: 5, pollMs: 20 });
    symlinkSync("../releases/2", join(folder, "site", "next"));
    renameSync(join(folder, "site", "next"), join(folder, "site", "current"));
    await hears("2");
  });

  test("a file of the set that was missing from the start", async () => {
    const files = ["lb.toml", "admin.token"].map((name) => join(folder, name));
    writeFileSync(files[0]!, "config");
    start(() => files);
    writeFileSync(files[1]!, "token");
    await hears("config");
  });

  test("several files that change together as one change", async () => {
    const files = ["lb.toml", "a.pem", "b.pem"].map((name) => join(folder, name));
    for (const file of files) writeFileSync(file, "one");
    start(() => files);
    for (const file of files) writeFileSync(file, "two");
    await hears("two");
    await another(files[0]!);
    expect(heard).toEqual(["two", "another"]);
  });

  test("the return of a missing file, if the config was read without it", async () => {
    const files = ["lb.toml", "a.pem"].map((name) => join(folder, name));
    for (const file of files) writeFileSync(file, "one");
    start(() => files);
    unlinkSync(files[1]!);
    writeFileSync(files[0]!, "two");
    await hears("two");
    writeFileSync(files[1]!, "one");
    await eventually("a second call", () => heard.length === 2);
  });
});

describe("a file that may be half written", () => {
  const quick = { debounceMs: 5, pollMs: 10 };

  test("is waited for while a process has it open for writing", async () => {
    const file = join(folder, "lb.toml");
    writeFileSync(file, "one and two");
    start(() => [file], quick);
    const writer = openSync(file, "w");
    writeSync(writer, "three");
    await looks();
    writeSync(writer, " and four");
    await looks();
    expect(heard).toEqual([]);
    closeSync(writer);
    await hears("three and four");
    expect(heard).toEqual(["three and four"]);
  });

  test("is used if it stays open but is no longer written", async () => {
    const file = join(folder, "lb.toml");
    writeFileSync(file, "one");
    start(() => [file], { ...quick, openMs: 50 });
    const writer = openSync(file, "w");
    writeSync(writer, "two");
    await hears("two");
    closeSync(writer);
  });

  test("settles first if it shrank in place, although no process has it open", async () => {
    const file = join(folder, "lb.toml");
    writeFileSync(file, "one and two");
    start(() => [file], { ...quick, settleMs: 60_000 });
    writeFileSync(file, "three");
    await looks();
    expect(heard).toEqual([]);
    writeFileSync(file, " and four", { flag: "a" });
    await hears("three and four");
    expect(heard).toEqual(["three and four"]);
    // A file that is replaced by a rename is complete.
    writeFileSync(`${file}~`, "two");
    renameSync(`${file}~`, file);
    await hears("two");
  });

  test("is used when it stays shorter", async () => {
    const file = join(folder, "lb.toml");
    writeFileSync(file, "one and two");
    start(() => [file], { ...quick, settleMs: 50 });
    writeFileSync(file, "three");
    await hears("three");
  });
});

describe("the content in use", () => {
  test("is compared with the disk: a change before the watch began, or before a refresh, is reported", async () => {
    const file = join(folder, "lb.toml");
    let loaded = contentOf(Buffer.from("one"));
    writeFileSync(file, "two");
    start(() => [file], { debounceMs: 20, pollMs: 60_000, loadedContent: () => loaded });
    await hears("two");
    watch?.refresh();
    await eventually("it is heard again, since the other one stayed in force", () => heard.length === 2);
    loaded = contentOf(Buffer.from("two"));
    watch?.refresh();
    await another(file);
    expect(heard).toEqual(["two", "two", "another"]);
  });
});

describe("a watch does not call for", () => {
  test("new times and the same content", async () => {
    const file = join(folder, "lb.toml");
    writeFileSync(file, "one");
    start(() => [file]);
    utimesSync(file, new Date(), new Date());
    writeFileSync(`${file}~`, "one");
    renameSync(`${file}~`, file);
    await another(file);
    expect(heard).toEqual(["another"]);
  });

  test("other files in the same folder", async () => {
    const file = join(folder, "lb.toml");
    writeFileSync(file, "one");
    start(() => [file]);
    for (let i = 0; i < 50; i++) writeFileSync(join(folder, "access.log"), `${i}\n`, { flag: "a" });
    await another(file);
    expect(heard).toEqual(["another"]);
  });

  test("a file that was emptied, before it is written", async () => {
    const file = join(folder, "lb.toml");
    writeFileSync(file, "one");
    start(() => [file], { debounceMs: 5, pollMs: 10 });
    writeFileSync(file, "");
    await looks();
    expect(heard).toEqual([]);
    writeFileSync(file, "two");
    await hears("two");
    expect(heard).toEqual(["two"]);
  });

  test("another set of files after refresh", async () => {
    const files = ["lb.toml", "a.pem"].map((name) => join(folder, name));
    for (const file of files) writeFileSync(file, "one");
    let set = [files[0]!];
    start(() => set);
    set = files;
    watch?.refresh();
    writeFileSync(files[1]!, "two");
    await hears("one");
    set = [files[0]!];
    watch?.refresh();
    writeFileSync(files[1]!, "three");
    await another(files[0]!);
    expect(heard).toEqual(["one", "another"]);
  });

  test("anything after stop", async () => {
    const file = join(folder, "lb.toml");
    writeFileSync(file, "one");
    start(() => [file], { debounceMs: 5, pollMs: 10 });
    watch?.stop();
    writeFileSync(file, "two");
    // A second watch with the same times has detected it, so the first one would have, too.
    let other = 0;
    const second = watchFiles(
      () => [file],
      () => other++,
      { debounceMs: 5, pollMs: 10 },
    );
    writeFileSync(file, "three");
    await eventually("the second watch", () => other > 0);
    second.stop();
    expect(heard).toEqual([]);
  });
});

/** Makes a change that is detected, so that earlier changes were detected, too. */
async function another(file: string): Promise<void> {
  writeFileSync(file, "another");
  await hears("another");
}

/** Resolves when a new watch with the shortest times has detected a change: earlier watches have looked several times by then. */
async function looks(): Promise<void> {
  const file = join(folder, "clock");
  writeFileSync(file, "0");
  for (let round = 1; round <= 3; round++) {
    let isHeard = false;
    const clock = watchFiles(
      () => [file],
      () => (isHeard = true),
      { debounceMs: 20, pollMs: 20 },
    );
    writeFileSync(file, String(round));
    await eventually("a tick", () => isHeard);
    clock.stop();
  }
}
