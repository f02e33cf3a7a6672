import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import { missingOf } from "../support/server.ts";

const program = join(import.meta.dirname, "confined.ts");

/** Runs the program in the environment of the wrapper; returns its output. */
async function run(wrapper: string[], args: string[]): Promise<unknown> {
  const [command, ...rest] = [...wrapper, process.execPath, program, ...args];
  const child = spawn(command!, rest, { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  let errors = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (errors += text));
  const [code] = (await once(child, "close")) as [number | null];
  if (code !== 0) throw new Error(`exit code ${code}: ${errors}`);
  return JSON.parse(output);
}

describe("in a network namespace", () => {
  // Twelve /64 networks with three hosts each, and addresses that differ in one word only.
  const networks = Array.from({ length: 12 }, (_, i) => `fd00:0:${i % 3}:${i + 1}:`);
  const hosts = [":1", "ffff::2", "1:2:3:4"];
  const sources = networks.flatMap((network) => hosts.map((host) => network + host));

  let seen: {
    withoutRoute: string;
    unreachable: string;
    prohibited: string;
    nobody: string;
    nobodyIPv6: string;
    takers: Record<string, string[]>;
  };

  beforeEach(async (context) => {
    if (process.getuid?.() !== 0) context.skip("network namespaces need root");
    const missing = await missingOf("unshare", "ip");
    if (missing !== null) context.skip(missing);
    seen ??= (await run(["unshare", "-n"], ["namespace", ...sources])) as typeof seen;
  });

  test("a failed connect reports the kernel's errno", () => {
    expect(seen.withoutRoute).toBe("ENETUNREACH");
    expect(seen.unreachable).toBe("EHOSTUNREACH");
    expect(seen.prohibited).toBe("EACCES");
    expect(seen.nobody).toBe("ECONNREFUSED");
    expect(seen.nobodyIPv6).toBe("ECONNREFUSED");
  });

  test('worker_affinity "client" gives all of an IPv6 /64 to one socket, and spreads different ones over the sockets', () => {
    const used = new Set<string>();
    for (const network of networks) {
      const takers = new Set(hosts.flatMap((host) => seen.takers[network + host]!));
      expect([network, takers.size]).toEqual([network, 1]);
      used.add([...takers][0]!);
    }
    expect(used.size).toBe(4);
  });
});

test("without free descriptors, sockets report EMFILE, and work again when there are some", async () => {
  const seen = await run(["sh", "-c", 'ulimit -n 64 && exec "$@"', "sh"], ["files"]);
  expect(seen).toMatchObject({
    listening: { call: "socket", code: "EMFILE" },
    connecting: "EMFILE",
    again: "ECONNREFUSED",
    listener: "number",
  });
});
