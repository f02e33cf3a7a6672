import { spawn } from "node:child_process";
import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { AccessSink } from "../../src/supervisor/access-sink.ts";
import { Log } from "../../src/supervisor/log.ts";
import { Output } from "../../src/supervisor/output.ts";
import { eventually } from "../support/eventually.ts";

let folder: string;
let files = 0;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "lb-log-"));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

const newFile = () => join(folder, `file-${files++}`);

/** A log that writes to a file, and the content of the file. */
function logInFile(options: { level?: "debug" | "info" | "warn" | "error"; format?: "text" | "json" } = {}) {
  const file = newFile();
  const log = new Log({ ...options, fd: openSync(file, "a") });
  const lines = async () => {
    await log.flush(5000);
    return readFileSync(file, "utf8").split("\n").slice(0, -1);
  };
  return { log, lines };
}

/** A named pipe: a non-blocking descriptor of its reading end. */
function newPipe() {
  const path = newFile();
  expect(Bun.spawnSync(["mkfifo", path]).exitCode).toBe(0);
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const chunk = Buffer.alloc(1024 * 1024);
  const read = (): string => {
    try {
      return chunk.toString("latin1", 0, readSync(fd, chunk, 0, chunk.length, null));
    } catch {
      return "";
    }
  };
  return { path, read, close: () => closeSync(fd) };
}

describe("the process log", () => {
  test("writes a line of readable text", async () => {
    const { log, lines } = logInFile();
    log.info("listening", { listener: "web", bind: "0.0.0.0:8080", backlog: 4096 });
    log.warn("slow", { why: 'a "b" c=d', empty: "" });
    const [first, second] = await lines();
    expect(first).toMatch(
      /^\d{4}-\d\d-\d\dT[\d:.]+Z info {2}listening listener=web bind=0\.0\.0\.0:8080 backlog=4096$/,
    );
    expect(second).toMatch(/Z warn {2}slow why="a \\"b\\" c=d" empty=""$/);
  });

  test("writes JSON if the config says so, from the next line on", async () => {
    const { log, lines } = logInFile();
    log.configure({ level: "info", format: "json" });
    log.error("reload failed", { file: "lb.toml", problems: 2, watched: true });
    const [line] = await lines();
    expect(JSON.parse(line!)).toEqual({
      time: expect.stringMatching(/^\d{4}-.*Z$/),
      level: "error",
      event: "reload failed",
      file: "lb.toml",
      problems: 2,
      watched: true,
    });
    expect(line).toMatch(/^\{"time":".*?","level":"error","event":"reload failed","file"/);
  });

  test("drops lines below its level", async () => {
    const { log, lines } = logInFile({ level: "warn" });
    log.debug("a");
    log.info("b");
    log.warn("c");
    log.error("d");
    log.configure({ level: "debug", format: "text" });
    log.debug("e");
    expect((await lines()).map((line) => line.split(" ").at(-1))).toEqual(["c", "d", "e"]);
  });

  test("shows control characters as escapes, so that nothing can fake a line or move the cursor", async () => {
    const { log, lines } = logInFile();
    log.info("check failed", { error: "x\n2026 error fake\u001b[2J\u009b" });
    const written = await lines();
    expect(written).toHaveLength(1);
    expect(written[0]).not.toMatch(/\p{Cc}/u);
  });

  test("keeps lines of the same moment in order, also at an exit", async () => {
    const source = `
      import { Log } from ${JSON.stringify(join(import.meta.dirname, "../../src/supervisor/log.ts"))};
      const log = new Log();
      for (let i = 0; i < 100; i++) log.info("line", { i });
      process.exit(3);`;
    const child = Bun.spawnSync([process.execPath, "-e", source]);
    expect(child.exitCode).toBe(3);
    const numbers = child.stderr.toString().match(/i=\d+/g);
    expect(numbers).toEqual(Array.from({ length: 100 }, (_, i) => `i=${i}`));
  });

  test("reports the number of lost lines once it can be read again", async () => {
    const pipe = newPipe();
    const log = new Log({ fd: openSync(pipe.path, constants.O_WRONLY | constants.O_NONBLOCK) });
    const long = "x".repeat(10_000);
    for (let i = 0; i < 200; i++) log.info(long);
    let text = "";
    await eventually("the warning", () => {
      text += pipe.read();
      return text.includes("lines of this log were lost");
    });
    const kept = text.match(/x{10000}\n/g)?.length ?? 0;
    const lost = Number(/ lines=(\d+)/.exec(text)?.[1]);
    expect(kept + lost).toBe(200);
    expect(lost).toBeGreaterThan(50);
    pipe.close();
  });
});

describe("the access log", () => {
  let warnings: () => Promise<string[]>;
  let log: Log;

  beforeEach(() => {
    ({ log, lines: warnings } = logInFile());
  });

  /** Writes lines and counts the settled ones. */
  function writer(sink: AccessSink) {
    const written = { characters: 0, settled: 0 };
    const write = (text: string) =>
      sink.write(text, text.split("\n").length - 1, (characters) => {
        written.characters += characters;
        written.settled++;
      });
    return { written, write };
  }

  test("is written to a file in order, and reports when that is done", async () => {
    const sink = new AccessSink(log);
    const file = newFile();
    expect(sink.configure({ file })).toBeNull();
    const { write, written } = writer(sink);
    for (let i = 0; i < 1000; i++) write(`line ${i} ä\n`);
    expect(written.settled).toBe(0);
    await sink.flush(5000);
    expect(written.settled).toBe(1000);
    const text = readFileSync(file, "utf8");
    expect(written.characters).toBe(text.length);
    expect(text).toBe(Array.from({ length: 1000 }, (_, i) => `line ${i} ä\n`).join(""));
    expect(sink.linesLost).toBe(0);
  });

  test("discards lines when it is off, and counts none as lost", () => {
    const sink = new AccessSink(log);
    const { write, written } = writer(sink);
    write("a\nb\n");
    expect(written).toEqual({ characters: 4, settled: 1 });
    expect(sink.linesLost).toBe(0);
  });

  test("follows a rotation: after reopen a new file has the path, no line is lost, and the old file is closed", async () => {
    const sink = new AccessSink(log);
    const file = newFile();
    const openFiles = (): string[] =>
      readdirSync("/proc/self/fd")
        .filter((fd) => existsSync(`/proc/self/fd/${fd}`))
        .map((fd) => readlinkSync(`/proc/self/fd/${fd}`))
        .filter((path) => path.startsWith(file));
    sink.configure({ file });
    const { write } = writer(sink);
    write("before\n");
    renameSync(file, `${file}.1`);
    sink.reopen();
    write("after\n");
    await sink.flush(5000);
    expect(readFileSync(`${file}.1`, "utf8")).toBe("before\n");
    expect(readFileSync(file, "utf8")).toBe("after\n");
    expect(openFiles()).toEqual([file]);
    expect(await warnings()).toEqual([expect.stringContaining("access log reopened")]);
  });

  test("keeps the old file, and logs that, when the new one cannot be opened", async () => {
    const sink = new AccessSink(log);
    const inner = newFile();
    Bun.spawnSync(["mkdir", inner]);
    const file = join(inner, "access.log");
    sink.configure({ file });
    renameSync(inner, `${inner}.old`);
    sink.reopen();
    writer(sink).write("kept\n");
    await sink.flush(5000);
    expect(readFileSync(join(`${inner}.old`, "access.log"), "utf8")).toBe("kept\n");
    expect(await warnings()).toEqual([
      expect.stringMatching(/ error access log not reopened.*folder does not exist.*ENOENT/),
    ]);
  });

  test("returns why a target cannot be used, and keeps the former one", async () => {
    const sink = new AccessSink(log);
    const file = newFile();
    sink.configure({ file });
    expect(sink.configure({ file: join(folder, "nowhere", "access.log") })).toMatch(
      /nowhere.*folder does not exist.*ENOENT/,
    );
    expect(sink.configure({ file: folder })).toMatch(/it is a folder \(EISDIR\)/);
    writer(sink).write("kept\n");
    await sink.flush(5000);
    expect(readFileSync(file, "utf8")).toBe("kept\n");
  });

  test("is written to another target after configure; queued lines go to the former one", async () => {
    const sink = new AccessSink(log);
    const [first, second] = [newFile(), newFile()];
    sink.configure({ file: first });
    const { write } = writer(sink);
    write("one\n");
    sink.configure({ file: second });
    write("two\n");
    sink.configure("off");
    write("three\n");
    await sink.flush(5000);
    expect(readFileSync(first, "utf8")).toBe("one\n");
    expect(readFileSync(second, "utf8")).toBe("two\n");
  });

  test("is not opened again by a configure that changes nothing", async () => {
    const sink = new AccessSink(log);
    const file = newFile();
    sink.configure({ file });
    rmSync(file);
    expect(sink.configure({ file })).toBeNull();
    expect(existsSync(file)).toBe(false);
  });

  test("queues lines for a slow reader of a pipe, complete and in order", async () => {
    const pipe = newPipe();
    const sink = new AccessSink(log);
    expect(sink.configure({ file: pipe.path })).toBeNull();
    const { write, written } = writer(sink);
    let sent = "";
    for (let i = 0; i < 100; i++) {
      const text = `${i} ${"y".repeat(5000)}\n`;
      sent += text;
      write(text);
    }
    // More than the pipe holds: the rest waits, and flush gives up in time.
    await sink.flush(20);
    expect(written.settled).toBeLessThan(100);
    let received = "";
    await eventually("every byte", () => {
      received += pipe.read();
      return received.length >= sent.length;
    });
    await sink.flush(5000);
    expect(received === sent).toBe(true);
    expect(written).toEqual({ characters: sent.length, settled: 100 });
    expect(sink.linesLost).toBe(0);
    pipe.close();
  });

  test("loses lines beyond its limit, counts them and warns once", async () => {
    const pipe = newPipe();
    const sink = new AccessSink(log, 200_000);
    sink.configure({ file: pipe.path });
    const { write, written } = writer(sink);
    const text = `${"z".repeat(9_998)}\n`;
    for (let i = 0; i < 40; i++) write(text + "\n");
    expect(sink.linesLost).toBe(40);
    expect(written.settled).toBe(20);
    let received = "";
    await eventually("what was kept", () => {
      received += pipe.read();
      return received.length >= 200_000;
    });
    await sink.flush(5000);
    expect(written.settled).toBe(40);
    // The pipe has room again.
    write(text);
    await sink.flush(5000);
    expect(sink.linesLost).toBe(40);
    expect(await warnings()).toEqual([expect.stringMatching(/ warn {2}access log is written too slowly/)]);
    pipe.close();
  });

  test("counts lines that a full disk does not take, warns once a minute, and keeps trying", async () => {
    const sink = new AccessSink(log);
    sink.configure({ file: "/dev/full" });
    const { write, written } = writer(sink);
    for (let i = 0; i < 5; i++) {
      write("a\nb\n");
      await sink.flush(5000);
    }
    expect(sink.linesLost).toBe(10);
    expect(written).toEqual({ characters: 20, settled: 5 });
    expect(await warnings()).toEqual([expect.stringMatching(/cannot be written.*target=\/dev\/full error=ENOSPC/)]);
  });

  test("warns once when its reader is gone, and is silent until it is reopened", async () => {
    const pipe = newPipe();
    const sink = new AccessSink(log);
    sink.configure({ file: pipe.path });
    pipe.close();
    const { write, written } = writer(sink);
    for (let i = 0; i < 3; i++) {
      write("a\n");
      await sink.flush(5000);
    }
    expect(sink.linesLost).toBe(3);
    expect(written.settled).toBe(3);
    expect(await warnings()).toEqual([
      expect.stringMatching(/ warn {2}access log cannot be written any more.*error=EPIPE/),
    ]);
    rmSync(pipe.path);
    sink.reopen();
    write("b\n");
    await sink.flush(5000);
    expect(readFileSync(pipe.path, "utf8")).toBe("b\n");
  });

  test("does not block the event loop while stdout is a pipe without a reader", async () => {
    const source = `
      import { AccessSink } from ${JSON.stringify(join(import.meta.dirname, "../../src/supervisor/access-sink.ts"))};
      import { Log } from ${JSON.stringify(join(import.meta.dirname, "../../src/supervisor/log.ts"))};
      const log = new Log();
      const sink = new AccessSink(log);
      sink.configure("stdout");
      for (let i = 0; i < 1000; i++) sink.write("x".repeat(999) + "\\n", 1, () => {});
      let ticks = 0;
      const timer = setInterval(() => ++ticks === 20 && (clearInterval(timer), log.info("alive")), 1);
      await new Promise((resolve) => process.stdin.once("data", resolve));
      await sink.flush(10_000);
      process.exit(sink.linesLost);`;
    const child = spawn(process.execPath, ["-e", source], { stdio: ["pipe", "pipe", "pipe"] });
    let stderr = "";
    child.stderr.on("data", (text) => (stderr += String(text)));
    child.stdout.pause();
    await eventually("a sign of life", () => stderr.includes("alive"));
    let received = 0;
    child.stdout.on("data", (chunk: Buffer) => (received += chunk.length));
    child.stdout.resume();
    child.stdin.write("go\n");
    const code = await new Promise((resolve) => child.once("close", resolve));
    expect({ code, received }).toEqual({ code: 0, received: 1_000_000 });
  });

  test.skipIf(process.getuid?.() === 0)("reports a file without write permission", () => {
    const file = newFile();
    writeFileSync(file, "");
    chmodSync(file, 0o400);
    expect(new AccessSink(log).configure({ file })).toMatch(/has no permission to write it \(EACCES\)/);
  });
});

test("an output that failed within a line starts a new line when it can write again", async () => {
  const file = newFile();
  // A limit on the size of files stops a write in the middle (setrlimit(2), EFBIG); bash counts in blocks of 1024 bytes.
  const source = `
    import { openSync, truncateSync } from "node:fs";
    import { Output } from ${JSON.stringify(join(import.meta.dirname, "../../src/supervisor/output.ts"))};
    process.on("SIGXFSZ", () => {});
    let lost = [];
    const output = new Output(openSync(${JSON.stringify(file)}, "a"), (lines, code) => lost.push(lines, code));
    const push = async (text) => {
      output.push({ bytes: Buffer.from(text), lines: 1, settled: () => {} });
      await output.drained();
    };
    await push("a".repeat(1500) + "\\nlost\\n");
    truncateSync(${JSON.stringify(file)}, 10);
    await push("whole\\n");
    console.log(lost.join(" "));`;
  const child = Bun.spawnSync(["bash", "-c", 'ulimit -f 1; exec "$0" -e "$1"', process.execPath, source], {
    env: process.env,
  });
  expect(child.stderr.toString()).toBe("");
  expect(child.stdout.toString()).toBe("2 EFBIG\n");
  expect(readFileSync(file, "utf8")).toBe(`${"a".repeat(10)}\nwhole\n`);
});

test("an empty output is drained at once", async () => {
  await new Output(openSync("/dev/null", "w"), () => {}).drained();
});
