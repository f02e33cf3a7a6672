// Backends given by name: the answers of the hosts file and DNS, their time, and what applies until then.
import { describe, expect, test } from "vitest";
import { tagged } from "../support/backends.ts";
import { ask, connect } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { hostsFile, silentServer } from "../support/hosts-file.ts";
import { freePort, startLb } from "../support/lb.ts";

describe("names", () => {
  test("are looked up again: new addresses are new backends, and a failed lookup keeps the last answer", async (context) => {
    using a = await tagged("a", { host: "127.0.7.1" });
    using _b = await tagged("b", { host: "127.0.7.2", port: a.port });
    using _c = await tagged("c", { host: "127.0.7.3", port: a.port });
    const port = await freePort();
    await using hosts = await hostsFile();
    if (hosts.trouble !== null) context.skip(hosts.trouble);
    await hosts.write("127.0.7.1 app.test", "127.0.7.2 app.test");
    const toml = `
      workers = 2
      [listeners.web]
      bind = "127.0.0.1:${port}"
      pool = "app"
      [pools.app]
      backends = ["app.test:${a.port}"]
      resolve = "200ms"
    `;
    await using lb = await startLb(toml, { wrapper: hosts.wrapper });
    const names = async (): Promise<Set<string>> =>
      new Set([await ask(port), await ask(port), await ask(port), await ask(port)]);
    const addresses = async (): Promise<string[]> =>
      (await lb.status()).pools[0]!.backends.map(({ address }) => address);
    expect(await addresses()).toEqual([`127.0.7.1:${a.port}`, `127.0.7.2:${a.port}`]);
    expect(await names()).toEqual(new Set(["a", "b"]));
    using old = await connect(port);
    const first = await old.line();

    await hosts.write("127.0.7.3 app.test");
    await lb.waitLog(({ event }) => event === "backends changed");
    expect(await addresses()).toEqual([`127.0.7.3:${a.port}`]);
    await eventually("every worker knows", async () => (await names()).size === 1);
    expect(await names()).toEqual(new Set(["c"]));
    // Clients connected to a removed address stay.
    expect(["a", "b"]).toContain(first);
    expect(await old.echoes()).toBe(true);

    await hosts.write();
    const line = await lb.waitLog(({ event }) => event === "name does not resolve");
    expect(line).toMatchObject({ level: "warn", host: "app.test", addresses_kept: 1 });
    expect(await names()).toEqual(new Set(["c"]));
    expect((await lb.ready()).status).toBe(200);

    await hosts.write("127.0.7.1 app.test");
    await lb.waitLog(({ event }) => event === "name resolves again");
    await eventually("a is back", async () => (await ask(port)) === "a");
    // One line per change, however often it was looked up.
    const changes = (): number => lb.log().filter(({ event }) => event === "backends changed").length;
    await eventually("the second change is logged", () => changes() === 2);
    expect(lb.log().filter(({ event }) => event === "name does not resolve").length).toBe(1);
  });

  test("a name that never resolved does not prevent the start: the pool has no backend until it resolves", async (context) => {
    using a = await tagged("a");
    await using hosts = await hostsFile();
    if (hosts.trouble !== null) context.skip(hosts.trouble);
    await hosts.write();
    const port = await freePort();
    const toml = `
      [listeners.web]
      bind = "127.0.0.1:${port}"
      pool = "app"
      [pools.app]
      backends = ["app.test:${a.port}"]
      resolve = "200ms"
    `;
    await using lb = await startLb(toml, { wrapper: hosts.wrapper });
    expect((await lb.ready("web")).status).toBe(503);
    expect(await ask(port)).toBe("reset");
    expect(await lb.waitLine(() => true)).toMatchObject({ end: "no_backend" });
    expect(lb.log().some(({ event, level }) => event === "name does not resolve" && level === "warn")).toBe(true);
    await hosts.write("127.0.0.1 app.test");
    await eventually("a is there", async () => (await ask(port)) === "a");
    expect((await lb.ready("web")).status).toBe(200);
  });

  test("without an answer delay neither the log nor other names", async (context) => {
    using a = await tagged("a");
    const [server, port] = [await silentServer(), await freePort()];
    if (server === null) return context.skip("port 53 is not to be had");
    await using _server = server;
    await using hosts = await hostsFile(`nameserver ${server.address}\noptions timeout:30\n`);
    if (hosts.trouble !== null) context.skip(hosts.trouble);
    await hosts.write("127.0.0.1 app.test");
    const toml = (more: string): string => `
      [listeners.web]
      bind = "127.0.0.1:${port}"
      pool = "app"
      [pools.app]
      backends = ["app.test:${a.port}"]
      resolve = "1s"
      ${more}
    `;
    const slow = `
      [listeners.slow]
      bind = "127.0.0.1:${await freePort()}"
      pool = "slow"
      [pools.slow]
      backends = [${Array.from({ length: 8 }, (_, i) => `"silent${i}.test:1"`).join(", ")}]
      resolve = "1s"
    `;
    await using lb = await startLb(toml(""), { wrapper: hosts.wrapper });
    const reload = lb.reload(toml(slow));
    await eventually("the silent server is asked", () => server.asked > 0);
    // The reload waits for the names, and still ends within seconds; the log is written meanwhile.
    expect(await ask(port)).toBe("a");
    await lb.waitLine(({ end }) => end !== "");
    expect((await lb.status()).config.generation).toBe(1);
    expect(await reload).toMatchObject({ ok: true });
    expect((await lb.ready("slow")).text).toContain("waits for the address of silent0.test, silent1.test");
    expect(await lb.ready("web")).toMatchObject({ status: 200 });
    // A name in the hosts file has its address, although all the others get no answer.
    await hosts.write("127.0.0.1 app.test", "127.0.0.1 other.test");
    expect(await lb.reload(toml(slow).replace("app.test", "other.test"))).toMatchObject({ ok: true });
    expect(await ask(port)).toBe("a");
    // The last answer for a name stays valid until a new one, even if the name was gone from the config for a while.
    await hosts.write("127.0.0.1 other.test");
    expect(await lb.reload(toml(slow))).toMatchObject({ ok: true });
    expect(await ask(port)).toBe("a");
  });
});
