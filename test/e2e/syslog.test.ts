// The access log to a real rsyslogd: over every transport, over its death, and without delay for clients.
import { hostname } from "node:os";
import { afterAll, describe, expect, test } from "vitest";
import { echo } from "../support/backends.ts";
import { connect, type Client } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { freePort, runLb, startLb, type Lb, type LbOptions } from "../support/lb.ts";
import { Rsyslog, rsyslogMissing, type Received } from "../support/rsyslog.ts";

const backend = await echo();
afterAll(() => backend[Symbol.dispose]());
const port = await freePort();

function config(syslog: string): string {
  return `
    workers = 1
    [log]
    access = "syslog"
    syslog = "${syslog}"
    format = "json"
    [listeners.web]
    bind = "127.0.0.1:${port}"
    pool = "app"
    [pools.app]
    backends = ["${backend.address}"]
    health.type = "off"
  `;
}

async function served(): Promise<Client> {
  const client = await connect(port);
  expect(await client.echoes()).toBe(true);
  return client;
}

/** One connection through lb; its client's address. */
async function exchange(): Promise<string> {
  using client = await served();
  client.finish();
  await client.ended;
  return client.address;
}

/** Times that lb has logged an event. */
const times = (lb: Lb, text: string): number => lb.log().filter(({ event }) => event.includes(text)).length;
const TROUBLE = "the syslog receiver cannot be reached";
const AGAIN = "takes access lines again";

describe.skipIf(rsyslogMissing !== null)("rsyslog", async () => {
  const rsyslog = rsyslogMissing === null ? await Rsyslog.start() : (null as never);
  const trusting = { env: { SSL_CERT_FILE: rsyslog?.authority.cert ?? "" } };

  const find = (client: string) => rsyslog.received().filter(({ msg }) => msg.includes(client));
  const receive = (client: string): Promise<Received> =>
    eventually(`the message about ${client}`, () => find(client)[0]);
  const start = (syslog: string, options: LbOptions = trusting): Promise<Lb> => startLb(config(syslog), options);

  test.each(["unix", "udp", "tcp", "tls"] as const)(
    "gets each access line by %s as a message of RFC 5424",
    async (transport) => {
      await using lb = await start(rsyslog[transport]);
      const client = await exchange();
      const received = await receive(client);
      const line = JSON.parse(received.msg) as { time: string };
      expect(received).toMatchObject({
        pri: String(16 * 8 + 6),
        version: "1",
        hostname: hostname(),
        app: "lb",
        procid: String(lb.pid),
        msgid: "access",
        sd: "-",
      });
      expect(Date.parse(received.time)).toBe(Date.parse(line.time));
      expect(received.time).toMatch(/\.\d{3}/);
      expect(line).toMatchObject({ client, end: "eof", listener: "web" });
      expect((await runLb(["check", "--deep", lb.file], trusting)).stdout).not.toContain("log.access");
    },
  );

  test("that dies delays no client, and gets the lines that have waited when it is there again", async () => {
    await using lb = await start(rsyslog.tcp);
    await receive(await exchange());
    await rsyslog.end();
    const clients: string[] = [];
    for (let i = 0; i < 20; i++) clients.push(await exchange());
    await lb.waitLog(({ event }) => event.includes(TROUBLE));
    await rsyslog.begin();
    for (const client of clients) await receive(client);
    await lb.waitLog(({ event }) => event.includes(AGAIN));
    expect([times(lb, TROUBLE), times(lb, AGAIN)]).toEqual([1, 1]);
    expect(await lb.metric("lb_access_log_lines_lost_total")).toBe(0);
    expect(clients.map((client) => find(client).length)).toEqual(clients.map(() => 1));
  });

  test("that dies on a unix socket gets the lines that have waited too", async () => {
    await using lb = await start(rsyslog.unix);
    await receive(await exchange());
    await rsyslog.end();
    const client = await exchange();
    await lb.waitLog(({ event, error }) => event.includes(TROUBLE) && error === "ECONNREFUSED");
    expect((await runLb(["check", "--deep", lb.file])).stderr).toMatch(
      /log\.access.*cannot be reached \(ECONNREFUSED\)/,
    );
    await rsyslog.begin();
    await receive(client);
    await lb.waitLog(({ event }) => event.includes(AGAIN));
  });

  test("that refuses datagrams loses those lines, which are counted, and gets every later one when it is back", async () => {
    await using lb = await start(rsyslog.udp);
    await receive(await exchange());
    await rsyslog.end();
    const lost = async () => (await lb.metric("lb_access_log_lines_lost_total")) ?? 0;
    await eventually("a lost line", async () => {
      await exchange();
      return (await lost()) > 2;
    });
    const before = await lost();
    await exchange();
    await eventually("another one", async () => (await lost()) > before);
    expect(times(lb, TROUBLE)).toBe(1);
    await rsyslog.begin();
    // The first of these meets the answer to the last lost one.
    for (const client of [await exchange(), await exchange(), await exchange()]) await receive(client);
    await eventually("it is noticed", async () => {
      await exchange();
      return times(lb, AGAIN) === 1;
    });
  });

  test("gets the lines of connections that a shutdown ends", async () => {
    await using lb = await start(rsyslog.tls);
    await receive(await exchange());
    using client = await served();
    const before = rsyslog.server.log().length;
    lb.signal("SIGTERM");
    await lb.waitLog(({ event }) => event === "stopping");
    lb.signal("SIGTERM");
    await lb.exited;
    expect((await receive(client.address)).msg).toContain('"end":"shutdown"');
    // A connection that ends without a close_notify is an error to it.
    expect(rsyslog.server.log().slice(before)).toBe("");
  });

  test("gets lines from a reload on that names it, and none from the next one on", async () => {
    await using lb = await startLb(config(rsyslog.unix).replace(/access = .*/, 'access = "stdout"'));
    const first = await exchange();
    expect((await lb.reload(config(rsyslog.unix))).ok).toBe(true);
    expect((await receive(await exchange())).input).toBe("imuxsock");
    expect((await lb.reload(config(rsyslog.tcp))).ok).toBe(true);
    expect((await receive(await exchange())).input).toBe("imptcp");
    expect((await lb.reload(config(rsyslog.tcp).replace(/access = .*/, 'access = "stdout"'))).ok).toBe(true);
    const last = await exchange();
    await lb.waitLine(({ client }) => client === last);
    expect([find(first), find(last)]).toEqual([[], []]);
  });

  test("whose certificate nothing verifies gets no line by TLS", async () => {
    await using lb = await start(rsyslog.tls, {});
    const client = await exchange();
    const { error } = await lb.waitLog(({ event }) => event.includes(TROUBLE));
    expect(error).toMatch(/VERIFY|SELF_SIGNED|CERT/);
    expect(find(client)).toEqual([]);
    await exchange();
  });
});
