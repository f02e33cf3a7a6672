// Health checks by HTTP against nginx: when a backend is up or down, and what nginx logs about the checks.
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test, type TestContext } from "vitest";
import { Authority, peersMissing } from "../support/certificates.ts";
import { eventually } from "../support/eventually.ts";
import { freePorts, startLb, type Lb } from "../support/lb.ts";
import { missingOf, Server } from "../support/server.ts";

const HEALTH = `interval = "100ms", timeout = "5s", rise = 2, fall = 3`;

function skipWithout(context: TestContext, missing: string | null): void {
  if (missing !== null) context.skip(missing);
}

async function nginx(server: Server, ports: [number, number], leaf: { cert: string; key: string }): Promise<void> {
  const file = join(server.dir, "nginx.conf");
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (name) => `${name}_temp_path ${server.dir}/${name};`,
  );
  await writeFile(
    file,
    `daemon off; master_process off; pid ${server.dir}/pid; error_log ${server.dir}/error.log info;
    events {}
    http {
      ${temporary.join(" ")}
      log_format plain '$request $status $host "$http_user_agent" $ssl_server_name $server_port';
      access_log ${server.dir}/access.log plain;
      server {
        listen 127.0.0.1:${ports[0]};
        listen 127.0.0.1:${ports[1]} ssl;
        ssl_certificate ${leaf.cert}; ssl_certificate_key ${leaf.key};
        location /health { if (!-f ${server.dir}/ready) { return 503 "starting"; } return 200 "service is ready"; }
      }
    }`,
  );
  await writeFile(join(server.dir, "ready"), "");
  server.start(["nginx", ["-p", server.dir, "-c", file, "-e", join(server.dir, "error.log")]]);
}

const backendOf = async (lb: Lb, pool: string) =>
  (await lb.status()).pools.find(({ name }) => name === pool)!.backends[0]!;

test("nginx is up while its health page succeeds, over TLS too, and logs nothing but requests", async (context) => {
  skipWithout(context, (await missingOf("nginx")) ?? peersMissing);
  using authority = await Authority.make();
  await using server = await Server.make("nginx");
  const [front, plain, secure] = await freePorts(3);
  await nginx(server, [plain, secure], await authority.leaf("app.example"));
  const toml = `
    workers = 1
    listeners.web = { bind = "127.0.0.1:${front}", pool = "plain", routes = [
      { pool = "secure", sni = ["a.example"] }, { pool = "verified", sni = ["b.example"] },
      { pool = "head", sni = ["c.example"] }, { pool = "text", sni = ["d.example"] }] }
    [pools.plain]
    backends = ["127.0.0.1:${plain}"]
    health = { type = "http", path = "/health", body = "is ready", ${HEALTH} }
    [pools.secure]
    backends = ["127.0.0.1:${secure}"]
    health = { type = "http", path = "/health", host = "app.example", tls = true, ${HEALTH} }
    [pools.verified]
    backends = ["127.0.0.1:${secure}"]
    tls = { ca = "${authority.cert}", server_name = "app.example" }
    health = { type = "http", path = "/health", ${HEALTH} }
    [pools.head]
    backends = ["127.0.0.1:${plain}"]
    health = { type = "http", method = "HEAD", path = "/missing", status = "200,404", ${HEALTH} }
    [pools.text]
    backends = ["127.0.0.1:${plain}"]
    health = { type = "http", path = "/health", body = "is great", initial = "down", ${HEALTH} }
  `;
  await using lb = await startLb(toml);
  const good = ["plain", "secure", "verified", "head"];
  await eventually("checks", async () => {
    const checks = await Promise.all(good.map(async (pool) => (await backendOf(lb, pool)).health.checks.success));
    return checks.every((success) => success >= 5);
  });
  for (const pool of good)
    expect(await backendOf(lb, pool)).toMatchObject({ up: true, health: { checks: { failure: 0 } } });
  expect(await backendOf(lb, "text")).toMatchObject({
    up: false,
    health: { last_error: 'status 200, but the body does not contain "is great"' },
  });

  await rm(join(server.dir, "ready"));
  const down = await lb.waitLog(({ event, pool }) => event === "backend down" && pool === "secure");
  expect(down["reason"]).toBe("status 503, expected 200-399");
  await lb.waitLog(({ event, pool }) => event === "backend down" && pool === "plain");
  expect(await backendOf(lb, "head")).toMatchObject({ up: true });
  await writeFile(join(server.dir, "ready"), "");
  await lb.waitLog(({ event, pool }) => event === "backend up" && pool === "secure");
  await lb.waitLog(({ event, pool }) => event === "backend up" && pool === "plain");

  const requests = new Set(server.log("access.log").trim().split("\n"));
  expect(requests).toContain(`GET /health HTTP/1.1 200 127.0.0.1 "lb" - ${plain}`);
  expect(requests).toContain(`GET /health HTTP/1.1 200 app.example "lb" app.example ${secure}`);
  expect(requests).toContain(`GET /health HTTP/1.1 200 127.0.0.1 "lb" app.example ${secure}`);
  expect(requests).toContain(`HEAD /missing HTTP/1.1 404 127.0.0.1 "lb" - ${plain}`);
  // nginx logs clients that leave too early at the level info. The missing page is one of the test's own.
  const errors = server
    .log("error.log")
    .split("\n")
    .filter((line) => !line.includes("/missing"));
  expect(errors.filter((line) => /\[(?!notice)|prematurely|reset/.test(line))).toEqual([]);
});

test("a backend that dies is down after `fall` checks, with fast_interval between them", async (context) => {
  skipWithout(context, (await missingOf("nginx")) ?? peersMissing);
  using authority = await Authority.make();
  await using server = await Server.make("nginx");
  const [front, plain, secure] = await freePorts(3);
  await nginx(server, [plain, secure], await authority.leaf("app.example"));
  await using lb = await startLb(`
    workers = 1
    listeners.web = { bind = "127.0.0.1:${front}", pool = "app" }
    [pools.app]
    backends = ["127.0.0.1:${plain}"]
    health = { type = "http", path = "/health", interval = "1s", fast_interval = "20ms", fall = 10 }
  `);
  await eventually("a check", async () => (await backendOf(lb, "app")).health.checks.success >= 1);
  const diedMs = Date.now();
  await server.end("SIGKILL");
  const down = await lb.waitLog(({ event }) => event === "backend down");
  const tookMs = Date.parse(down.time) - diedMs;
  console.log(`down ${tookMs} ms after the death, with interval 1 s, fast_interval 20 ms and fall = 10`);
  // With only the interval it would be at least 8.1 s.
  expect(tookMs).toBeLessThan(6000);
});
