// Names to addresses according to a machine's files and name servers.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { formatAddress } from "../../src/core/address.ts";
import { candidates, inHosts, lookUp } from "../../src/supervisor/lookup.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "lb-names-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("a hosts file", () => {
  const text =
    "127.0.0.1\tlocalhost  lo # me\n#10.9.9.9 app\n10.0.0.1 app App.test\n::1 app\n10.0.0.2 other.app # app\n";

  test("has all addresses of a name, in upper or lower case, of aliases too, and none for a part of a name", () => {
    expect(inHosts(text, "app")).toEqual(["10.0.0.1", "::1"]);
    expect(inHosts(text, "APP.test.")).toEqual(["10.0.0.1"]);
    expect(inHosts(text, "lo")).toEqual(["127.0.0.1"]);
    expect(inHosts(text, "pp")).toEqual([]);
    expect(inHosts(text, "me")).toEqual([]);
    expect(inHosts("", "app")).toEqual([]);
  });
});

describe("search and ndots", () => {
  test.each([
    ["", "app", ["app"]],
    ["nameserver 10.0.0.1\nsearch a.test b.test.", "app", ["app.a.test", "app.b.test", "app"]],
    ["search a.test", "app.x", ["app.x", "app.x.a.test"]],
    ["search a.test", "app.", ["app"]],
    ["domain a.test # mine", "app", ["app.a.test", "app"]],
    ["search a.test\nsearch b.test", "app", ["app.b.test", "app"]],
    ["search svc.cluster.local\noptions edns0 ndots:5", "db.ns.svc", ["db.ns.svc.svc.cluster.local", "db.ns.svc"]],
    ["search a.test\noptions ndots:2", "a.b.c", ["a.b.c", "a.b.c.a.test"]],
  ])("%j: %s", (text, host, names) => {
    expect(candidates(text, host)).toEqual(names);
  });
});

describe("a name", () => {
  /** A server's answers: addresses, or the code of a failure. Its queries are recorded. */
  function names(answers: Record<string, string[] | string>, hosts = "", conf = "search a.test b.test") {
    const asked: string[] = [];
    writeFileSync(join(folder, "hosts"), hosts);
    writeFileSync(join(folder, "resolv.conf"), conf);
    const ask = async (name: string, family: 4 | 6): Promise<string[]> => {
      asked.push(`${name} ${family}`);
      const answer = answers[`${name} ${family}`] ?? "ENOTFOUND";
      if (typeof answer === "string") throw Object.assign(new Error(answer), { code: answer });
      return answer;
    };
    const sources = { hosts: join(folder, "hosts"), resolvConf: join(folder, "resolv.conf"), ask };
    const find = async (host: string): Promise<string[]> =>
      (await lookUp(host, sources)).map((address) => formatAddress(...address));
    return { find, asked };
  }

  test("in the hosts file is not queried; localhost never is", async () => {
    const { find, asked } = names({}, "10.0.0.2 app\n10.0.0.1 app\n10.0.0.2 app\n");
    expect(await find("app")).toEqual(["10.0.0.1", "10.0.0.2"]);
    expect(await find("localhost")).toEqual(["127.0.0.1"]);
    expect(await find("x.localhost")).toEqual(["127.0.0.1"]);
    expect(asked).toEqual([]);
  });

  test("has the addresses of both families, from the first candidate that has any", async () => {
    const { find, asked } = names({ "app.b.test 4": ["10.0.0.1"], "app.b.test 6": ["::2"], "app 4": ["10.9.9.9"] });
    expect(await find("app")).toEqual(["10.0.0.1", "::2"]);
    expect(asked).toEqual(["app.a.test 4", "app.a.test 6", "app.b.test 4", "app.b.test 6"]);
  });

  test("has the addresses of one family if the other fails", async () => {
    expect(await names({ "app.a.test 4": ["10.0.0.1"], "app.a.test 6": "ETIMEOUT" }).find("app")).toEqual(["10.0.0.1"]);
  });

  test("continues with the next candidate after a server's error, but not after a timeout", async () => {
    const failing = names({ "app.a.test 4": "ESERVFAIL", "app.b.test 4": ["10.0.0.1"] });
    expect(await failing.find("app")).toEqual(["10.0.0.1"]);
    const silent = names({ "app.a.test 4": "ETIMEOUT", "app.b.test 4": ["10.0.0.1"] });
    await expect(silent.find("app")).rejects.toThrow("no name server has answered (asked for app.a.test)");
  });

  test("that has no address fails with a reason", async () => {
    await expect(names({}).find("app")).rejects.toThrow("there is no such name");
    const failing = names({ "app.a.test 4": "ESERVFAIL" });
    await expect(failing.find("app")).rejects.toThrow("the name server has failed (asked for app.a.test)");
  });
});
