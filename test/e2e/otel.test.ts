// The export to OpenTelemetry, by the running binary to a receiver that checks each request against the official definitions.
import { afterAll, expect, test } from "vitest";
import { echo, refusing } from "../support/backends.ts";
import { Authority, peersMissing } from "../support/certificates.ts";
import { connect } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { freePort, startLb, type LbOptions } from "../support/lb.ts";
import { OtlpReceiver } from "../support/otlp.ts";

const backend = await echo();
afterAll(() => backend[Symbol.dispose]());
const port = await freePort();

function config(otel: string, log = `access = "off"\nformat = "json"`): string {
  return `
    workers = 1
    ${otel === "" ? "" : `[otel]\ninterval = "200ms"\n${otel}`}
    [log]
    ${log}
    [listeners.web]
    bind = "127.0.0.1:${port}"
    pool = "app"
    [pools.app]
    backends = ["${backend.address}"]
    health.type = "off"
  `;
}

const start = (otel: string, options: LbOptions = {}) => startLb(config(otel), options);

/** One connection through lb; its client's address. */
async function exchange(): Promise<string> {
  using client = await connect(port);
  expect(await client.echoes()).toBe(true);
  client.finish();
  await client.ended;
  return client.address;
}

/** Values that change between two readings. */
const MOVES = /^(process_|lb_otel_|lb_worker_event_loop)/;
const FAILS = "export to OpenTelemetry fails";
const AGAIN = "takes exports again";

test("a receiver gets the metrics that /metrics has, and each access line, also with access = off", async () => {
  using receiver = await OtlpReceiver.start();
  await using lb = await start(`endpoint = "${receiver.url}/"`);
  const client = await exchange();
  const line = await receiver.line(client);
  expect(line).toMatchObject({ listener: "web", pool: "app", backend: backend.address, end: "eof", worker: 0 });
  expect(line["bytes_in"]).toBeGreaterThan(0);
  expect(line["duration_ms"]).toBeGreaterThan(0);
  const sent = await receiver.metrics(receiver.exports.length);
  expect(sent.resource).toMatchObject({ "service.name": "lb", "process.pid": lb.pid });
  const shown = (await lb.metrics()).split("\n").filter((text) => text !== "" && !text.startsWith("#"));
  const still = (lines: string[]) => lines.filter((text) => !MOVES.test(text)).toSorted();
  expect(still(sent.lines())).toEqual(still(shown));
  expect(sent.lines()).toContain(`lb_listener_connections_total{listener="web"} 1`);
  expect(await lb.metric("lb_otel_exports_total", { result: "failure" })).toBe(0);
  expect(await lb.metric("lb_otel_log_records_lost_total")).toBe(0);
});

test("headers come from the environment, and no value of one is shown by the admin API", async () => {
  using receiver = await OtlpReceiver.start();
  const headers = 'headers = { Authorization = "Bearer ${OTEL_TEST_TOKEN}", X-Scope-OrgID = "literal-secret" }';
  const env = { OTEL_TEST_TOKEN: "environment-secret" };
  await using lb = await start(`endpoint = "${receiver.url}"\n${headers}`, { env });
  await receiver.metrics();
  expect(receiver.exports[0]!.headers).toMatchObject({
    authorization: "Bearer environment-secret",
    "x-scope-orgid": "literal-secret",
    "content-type": "application/json",
  });
  const text = await (await lb.fetch("/api/config")).text();
  expect((JSON.parse(text) as { otel: object }).otel).toEqual({
    endpoint: receiver.url,
    interval: "200ms",
    headers: { Authorization: "Bearer ${OTEL_TEST_TOKEN}", "X-Scope-OrgID": "${OTEL_HEADERS_X_SCOPE_ORGID}" },
  });
  expect(text + lb.output() + (await (await lb.fetch("/api/status")).text())).not.toMatch(
    /literal-secret|environment-secret/,
  );
});

test("a receiver that is gone delays no client, is logged once, and gets the lines that have waited", async () => {
  const receiver = await OtlpReceiver.start();
  await using lb = await start(`endpoint = "${receiver.url}"`);
  await receiver.line(await exchange());
  let answers = 0;
  receiver.answer = () => ({ status: ++answers % 2 === 0 ? 503 : 502 });
  const clients: string[] = [];
  for (let i = 0; i < 20; i++) clients.push(await exchange());
  await lb.waitLog(({ event, error }) => event === FAILS && /^HTTP 50[23]$/.test(String(error)));
  await eventually(
    "a failed export of lines",
    async () => ((await lb.metric("lb_otel_exports_total", { signal: "logs", result: "failure" })) ?? 0) > 1,
  );
  const before = receiver.exports.length;
  receiver.answer = () => ({ status: 200, body: "{}" });
  await lb.waitLog(({ event }) => event.includes(AGAIN));
  const seen = () => new Set(receiver.lines().map(({ client }) => client));
  await eventually("every line", () => clients.every((client) => seen().has(client)));
  expect(receiver.exports.length).toBeGreaterThan(before);
  expect(lb.log().filter(({ event }) => event === FAILS)).toHaveLength(1);
  expect(await lb.metric("lb_otel_log_records_lost_total")).toBe(0);
  receiver[Symbol.dispose]();
  await exchange();
});

test("no request comes before the time that a receiver asks for", async () => {
  using receiver = await OtlpReceiver.start();
  receiver.answer = (path) =>
    path === "/v1/logs" ? { status: 429, headers: { "Retry-After": "2" } } : { status: 200, body: "{}" };
  await using lb = await start(`endpoint = "${receiver.url}"`);
  const client = await exchange();
  const requests = () => receiver.exports.filter(({ path }) => path === "/v1/logs");
  await eventually("two requests", () => requests().length === 2);
  expect(requests()[1]!.atMs - requests()[0]!.atMs).toBeGreaterThan(1900);
  receiver.answer = () => ({ status: 200, body: "{}" });
  await receiver.line(client);
  await lb.stop();
});

test("lines that a receiver refuses for good are lost and counted, those too that it rejects in part", async () => {
  using receiver = await OtlpReceiver.start();
  receiver.answer = (path) => ({ status: path === "/v1/logs" ? 400 : 200 });
  await using lb = await start(`endpoint = "${receiver.url}"`);
  const lost = () => lb.metric("lb_otel_log_records_lost_total");
  await exchange();
  await eventually("a lost line", async () => (await lost()) === 1);
  expect((await lb.status()).otel).toMatchObject({ log_records_lost: 1 });
  receiver.answer = () => ({ status: 200, body: '{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"no"}}' });
  await exchange();
  await eventually("another one", async () => (await lost()) === 2);
});

test("the last lines and metrics come before the process ends, even if shutdown has ended the connection", async () => {
  using receiver = await OtlpReceiver.start();
  await using lb = await startLb(config(`endpoint = "${receiver.url}"`).replace("200ms", "1h"));
  using client = await connect(port);
  expect(await client.echoes()).toBe(true);
  lb.signal("SIGTERM");
  await lb.waitLog(({ event }) => event === "stopping");
  lb.signal("SIGTERM");
  await lb.exited;
  expect(receiver.lines()).toMatchObject([{ client: client.address, end: "shutdown" }]);
  expect((await receiver.metrics()).lines()).toContain(
    `lb_listener_connections_ended_total{listener="web",end="shutdown",end_by="lb"} 1`,
  );
});

test("a receiver that refuses connections holds the end of the process for a bounded time", async () => {
  await using lb = await start(`endpoint = "http://${await refusing()}"`);
  await exchange();
  await lb.waitLog(({ event, error }) => event === FAILS && /ConnectionRefused|ECONNREFUSED/.test(String(error)));
  lb.signal("SIGTERM");
  expect(await lb.exited).toEqual({ code: 0, signal: null });
});

test("a reload begins the export, moves it to another receiver, and ends it", async () => {
  using first = await OtlpReceiver.start();
  using second = await OtlpReceiver.start();
  await using lb = await start("");
  expect((await lb.status()).otel).toBeNull();
  expect((await lb.reload(config(`endpoint = "${first.url}"`))).ok).toBe(true);
  await first.line(await exchange());
  await lb.reload(config(`endpoint = "${second.url}"`));
  const moved = await exchange();
  await second.line(moved);
  await second.metrics();
  await lb.reload(config(""));
  const last = await exchange();
  await eventually("the end of the export", async () => (await lb.status()).otel === null);
  expect([...first.lines(), ...second.lines()].map(({ client }) => client)).not.toContain(last);
  expect(first.lines().map(({ client }) => client)).not.toContain(moved);
});

test.skipIf(peersMissing !== null)("an https receiver is verified by the CA certificates of the system", async () => {
  using authority = await Authority.make();
  using receiver = await OtlpReceiver.start(await authority.leaf("localhost"));
  await using trusting = await start(`endpoint = "${receiver.url}"`, { env: { SSL_CERT_FILE: authority.cert } });
  await receiver.line(await exchange());
  await trusting.stop();
  receiver.exports.length = 0;
  await using lb = await start(`endpoint = "${receiver.url}"`);
  await exchange();
  const { error } = await lb.waitLog(({ event }) => event === FAILS);
  expect(error).toMatch(/CERT|VERIFY|certificate/i);
  expect(receiver.exports).toEqual([]);
});
