// The single list of options. Each row is one option: its kind of value, its default, its documentation. Types, validation, the
// JSON Schema and docs/config.md come from here. `later(…)` around a row reserves an option whose feature does not exist
// yet, and the second array of a `choice` reserves words; to enable a feature here, move them out.
import type { InferOutput } from "valibot";
import { BALANCES, HASH_KEYS } from "../core/balance.ts";
import { DRY_RUN_LIMITS } from "../core/dry-run.ts";
import {
  sourceAddress,
  bandwidth,
  bindAddress,
  choice,
  cidr,
  dialAddress,
  duration,
  flag,
  headers,
  hex,
  httpHost,
  httpPath,
  nameText,
  otlpEndpoint,
  protocolName,
  rate,
  regularExpression,
  serverName,
  size,
  sniPattern,
  statusCodes,
  syslogAddress,
  text,
  userName,
  whole,
} from "./kinds.ts";
import type { DialEndpoint, SyslogAddress } from "./kinds.ts";
import { absent, either, later, list, named, oneOrMore, required, row, secret, section, shorthand } from "./rows.ts";

const connectionsMax = 10_000_000;

/** Time before the first keepalive probe, within the limits of the kernel. */
const keepalive = () => duration({ least: 1000, most: 32_767_000, zero: "off" });

// ------------------------------------------------------------------ the process

const admin = section('{ bind = "127.0.0.1:9900" }', {
  enabled: row(flag(), true, "Serve /metrics, /live, /ready and the JSON API."),
  bind: row(bindAddress(), "127.0.0.1:9900", "Address to listen on. A Unix socket is created with mode 0600."),
  token_file: row(
    text("file"),
    "",
    `File with the bearer token that every request except /live and /ready needs. Required unless bind is a loopback address or a Unix socket. "" = no token.`,
  ),
  read_token_file: row(
    text("file"),
    "",
    `File with a second bearer token that allows reading only, for Prometheus. It needs token_file, and must differ from it. "" = none.`,
  ),
  tls: row(
    section('{ cert = "certs/site.pem", key = "certs/site.key" }', {
      cert: row(
        text("file"),
        "",
        "Certificate followed by its chain, PEM. It is subject to the same checks as those of listeners.",
      ),
      key: row(text("file"), "", "Private key of the certificate, PEM, not encrypted."),
    }),
    {},
    "HTTPS, with TLS 1.2 or later. Default: HTTP.",
  ),
});

const log = section('{ level = "info" }', {
  level: row(choice(["debug", "info", "warn", "error"]), "info", "Minimum severity of logged messages."),
  format: row(choice(["text", "json"]), "text", "Format of the lines of the log and of the access log."),
  access: row(
    text(`"stdout", "stderr", "syslog", "off" or a file`, 1),
    "stdout",
    "Destination of the access log, which has one line per connection, written when it ends. SIGUSR1 reopens files.",
  ),
  syslog: row(
    syslogAddress(),
    "unix:/dev/log",
    `Receiver of the access log with access = "syslog", in the format of RFC 5424: "unix:/dev/log", "udp://host:514", "tcp://host:601" or "tls://host:6514", whose certificate is verified by the system's CA certificates.`,
  ),
});

const otel = section('{ endpoint = "http://127.0.0.1:4318" }', {
  endpoint: secret(
    required(
      otlpEndpoint(),
      "Receiver of OTLP over HTTP with JSON: /v1/metrics and /v1/logs are added. The certificate of an https URL is verified by the system's CA certificates.",
    ),
  ),
  interval: row(
    duration({ least: 100 }),
    "10s",
    "Time between exports of the metrics. Access lines are sent every second.",
  ),
  headers: secret(row(headers(), {}, "Headers of each request. Their values are not shown by the admin API.")),
});

// ------------------------------------------------------------------ listeners

const listenerTimeouts = section('{ idle = "10m", half_close = "1m" }', {
  handshake: row(duration(), "10s", "Time from accept until PROXY header, ClientHello and TLS handshake are complete."),
  idle: row(
    duration({ zero: "never" }),
    "10m",
    "Time without a byte in either direction after which the connection is ended.",
  ),
  half_close: row(
    duration({ zero: "never" }),
    "1m",
    "Time without a byte from the other side after one side has sent FIN.",
  ),
  lifetime: row(
    duration({ zero: "unlimited" }),
    "0s",
    "Maximum age of a connection. It is ended at a random time within the last 10 %.",
  ),
});

const certificate = section('{ cert = "certs/site.pem", key = "certs/site.key" }', {
  cert: required(
    text("file", 1),
    "Certificate followed by its chain, PEM. It must be valid now. A chain in the wrong order is a warning.",
  ),
  key: required(
    text("file", 1),
    "Private key of the certificate, PEM, not encrypted. It may be in the same file as `cert`. A key that every user can read is a warning.",
  ),
});

const listenerTlsRows = {
  certificates: required(
    list(certificate, 1, "expected at least one certificate, found an empty array"),
    "Selected by SNI from the names in each certificate (a wildcard covers one label). The first is the default. An RSA and an ECDSA certificate may have the same name. If two certificates have the same name and key type, the first is used.",
  ),
  unknown_sni: row(
    choice(["default", "reject"]),
    "default",
    "What a client gets if its server name is in no certificate, or if it sends none. default: the default certificate. reject: a TLS alert.",
  ),
  min_version: row(choice(["1.2", "1.3"]), "1.2", "Minimum TLS version."),
  ciphers: row(
    text("text"),
    "",
    `TLS 1.2 cipher list in OpenSSL format; "" = the runtime's default. TLS 1.3 suites are always enabled.`,
  ),
  alpn: row(
    list(protocolName()),
    [],
    `Protocols that lb offers, in order of preference. A client that offers only others is refused. Empty = no negotiation.`,
  ),
  client_auth: row(
    choice(["off", "optional", "required"]),
    "off",
    "Whether clients must present a certificate. optional: a client without a certificate is accepted, one with an invalid certificate is refused. optional and required need client_ca.",
  ),
  client_ca: row(text("file"), "", "CA bundle that client certificates are verified against, PEM."),
  client_crl: row(text("file"), "", "Revoked client certificates: one or more X509 CRLs, PEM."),
};

const listenerTls = section(
  '{ certificates = [{ cert = "certs/site.pem", key = "certs/site.key" }] }',
  listenerTlsRows,
  { unknown_name: "unknown_sni" },
);

const route = section('{ sni = ["www.example.com"], pool = "app" }', {
  sni: row(
    list(sniPattern()),
    [],
    "Server names (SNI), any of which matches. `*.` covers one label. Without tls, lb reads the ClientHello and passes TLS through. Empty = any name, or none.",
  ),
  alpn: row(list(protocolName()), [], "Protocols in the client's ALPN offer, any of which matches. Empty = any."),
  clients: row(
    list(cidr()),
    [],
    "Client addresses, any of which matches. With a trusted PROXY header, the address in the header counts. Empty = any.",
  ),
  pool: required(text("pool's name", 1), "Pool for the connections that match."),
});

/** Of UDP and TPROXY. */
const laterOfListeners = {
  responses: later(row(whole(0, 1_000_000), 0, "udp: number of answers after which a session ends; 0 = no limit.")),
  requests: later(
    row(whole(0, 1_000_000), 0, "udp: number of datagrams of the client after which a session ends; 0 = no limit."),
  ),
  datagram_rate_limit: later(
    absent(
      section('{ rate = "1000/s", burst = 2000 }', {
        rate: required(rate(), "Sustained rate of datagrams."),
        burst: absent(whole(1, 1_000_000), null, "Number of datagrams that may exceed the rate at once."),
      }),
      null,
      "udp: limit on the datagrams of one client; datagrams over the limit are dropped and counted.",
    ),
  ),
  quic: later(row(flag(), false, "udp: routes by SNI and ALPN of the QUIC Initial.")),
  freebind: later(row(flag(), false, "Bind an address that this machine does not have yet.")),
  transparent: later(row(flag(), false, "TPROXY: accept connections to addresses that are not this machine's.")),
};

const listenerRows = {
  bind: required(
    oneOrMore(bindAddress()),
    "Address to listen on, or an array of addresses. A wildcard and single addresses of its port may be used together: the closest one gets the connection.",
  ),
  protocol: row(choice(["tcp"], ["udp"]), "tcp", "Transport protocol."),
  pool: absent(
    text("pool's name", 1),
    null,
    "Pool for connections that match no route. If left out, they are refused.",
  ),
  backlog: row(whole(1, 2_147_483_647), 4096, "Length of the accept queue. The kernel caps it at net.core.somaxconn."),
  worker_affinity: row(
    choice(["connection", "client"]),
    "connection",
    "How connections are assigned to workers. connection: by source address and port. client: by source address, so that all connections of a client go to one worker and its TLS sessions resume.",
  ),
  keepalive: row(keepalive(), "75s", "TCP keepalive on connections of clients. No effect on Unix sockets."),
  allow: row(list(cidr()), [], "Clients that may connect. Empty = all."),
  deny: row(list(cidr()), [], "Clients that may not connect. Takes precedence over allow."),
  proxy_protocol: row(
    choice(["off", "required", "optional"]),
    "off",
    "Whether connections begin with a PROXY header (v1 or v2). required and optional need trusted_proxies.",
  ),
  trusted_proxies: row(
    list(cidr()),
    [],
    "Addresses whose PROXY header is trusted. For other peers, required refuses the connection and optional treats the bytes as data of the client. Peers on a Unix socket are always trusted, so a listener that has only Unix sockets needs no trusted_proxies.",
  ),
  client_prefix: row(
    section("{ ipv4 = 32, ipv6 = 64 }", {
      ipv4: row(whole(1, 32), 32, "Prefix length for IPv4 addresses."),
      ipv6: row(whole(1, 128), 64, "Prefix length for IPv6 addresses."),
    }),
    {},
    "Addresses with the same prefix count as one client, for all limits per client.",
  ),
  max_connections: row(
    whole(0, connectionsMax),
    0,
    "Maximum number of concurrent connections on this listener; 0 = no limit of its own.",
  ),
  max_connections_per_client: row(
    whole(0, connectionsMax),
    0,
    "Maximum number of concurrent connections per client; 0 = no limit.",
  ),
  rate_limit: absent(
    section('{ rate = "100/s", burst = 200 }', {
      rate: required(rate(), "Sustained rate of new connections per client."),
      burst: absent(
        whole(1, 1_000_000),
        null,
        "Number of new connections per client that may exceed the rate at once. Default: the number that `rate` allows in one second, at least 1.",
      ),
    }),
    null,
    "Limit on new connections per client: a token bucket, exact across all workers. Default: no limit.",
  ),
  over_limit: row(
    choice(["reset", "close"]),
    "reset",
    "How connections that end before they reach a backend are closed: reset (RST) or close (FIN).",
  ),
  on_abort: row(
    choice(["reset", "close"]),
    "reset",
    "How lb ends a connection that it relays: at a timeout, a lifetime or a shutdown. reset: RST on both sides, without close_notify, at an idle timeout too, because lb cannot know whether an answer is complete. close: FIN, with close_notify on TLS, but still RST while bytes wait for a receiver and, at a lifetime or a shutdown, while bytes have moved within the last second. Connections that are killed through the admin API or ended by the timeout of a drain are always reset.",
  ),
  buffer: row(
    size(),
    "64KiB",
    "Bytes held in memory, per direction, for a receiver that does not keep up. The rest waits in the kernel, which slows the sender down.",
  ),
  dry_run: row(
    list(choice(DRY_RUN_LIMITS)),
    [],
    "Limits that are evaluated, counted (lb_dry_run_total) and logged (`dry_run=`), but not enforced.",
  ),
  bandwidth: row(
    section('{ upload = "10MB/s", download = "10MB/s" }', {
      upload: absent(bandwidth(), 0, "From the client to the backend. Default: no limit."),
      download: absent(bandwidth(), 0, "From the backend to the client. Default: no limit."),
      per: row(
        choice(["connection", "client", "listener"]),
        "connection",
        "What has the limit: each connection, or all connections of a client or of the listener together, which share it fairly.",
      ),
    }),
    {},
    "Bandwidth limits, exact across all workers. After a pause, 100 ms' worth of bytes may pass at once; above 100 Mbit/s it is 4 ms' worth. Default: no limit.",
  ),
  timeouts: row(listenerTimeouts, {}, "Timeouts of the connections."),
  tls: absent(listenerTls, null, "TLS termination. Default: no TLS."),
  routes: row(
    list(route),
    [],
    "The first route that matches is used. All conditions of a route must hold. A route without conditions matches every connection.",
  ),
  ...laterOfListeners,
};

const listener = section('{ bind = ":8080", pool = "app" }', listenerRows, { steer: "worker_affinity" });

// ------------------------------------------------------------------ pools

export const backendRows = {
  address: required(
    dialAddress(),
    "Address to connect to. A name that resolves to several addresses becomes several backends.",
  ),
  name: absent(nameText(), null, "Name in logs, metrics and commands, and for source_hash. Default: the address."),
  weight: row(whole(0, 256), 1, "Share of the connections, relative to the other backends; 0 = no new connections."),
  max_connections: row(
    whole(0, connectionsMax),
    0,
    "Maximum number of concurrent connections, over all workers; 0 = no limit. When every usable backend has as many, connections wait in the queue of the pool, or end as `queue_full`.",
  ),
  backup: row(
    flag(),
    false,
    "Use this backend only while no primary (a backend that is not a backup) is usable, or after all of them have failed for a connection.",
  ),
};

const backend = section('{ address = "10.0.0.11:80", weight = 3 }', backendRows);

const step = section('{ send = "PING" }', {
  send: secret(row(text("text"), "", "Sends the text as UTF-8, before anything is expected.")),
  send_hex: secret(row(hex(), "", "Sends the bytes, in place of `send`.")),
  expect: secret(
    row(
      text("text"),
      "",
      "Waits until the answer contains the text, in UTF-8. The answer is everything received since the last step that sent something, up to 64 KiB.",
    ),
  ),
  expect_hex: secret(row(hex(), "", "Waits until the answer contains the bytes, in place of `expect`.")),
  expect_regex: secret(
    row(
      regularExpression(),
      "",
      "Waits until the answer matches the regular expression, in place of `expect`. The syntax is JavaScript's, without look-around and back-references; `^` and `$` match at each line.",
    ),
  ),
});

const health = section('{ type = "tcp", interval = "2s" }', {
  type: row(
    choice(["tcp", "tls", "http", "exchange", "redis", "postgres", "mysql", "smtp", "ssh", "off"]),
    "tcp",
    "How backends are checked. tcp: a TCP connect, which is reset before the backend's program sees it, unless the pool has send_proxy. tls: a TCP connect and a TLS handshake, with the pool's tls settings; without those, any certificate is accepted. http: a request and its response. exchange: what `steps` send and expect. redis, postgres, mysql, smtp, ssh: enough of the protocol to show that the server serves. All types except tcp use TLS if the pool has tls settings and `port` is 0.",
  ),
  interval: row(
    duration({ least: 10 }),
    "2s",
    "Time from the start of one check to the start of the next, with up to 10 % jitter.",
  ),
  fast_interval: row(
    duration({ least: 10, zero: "interval" }),
    "0s",
    "Time between checks while the state is changing: from the first result that contradicts it until it has changed, or a result confirms it.",
  ),
  timeout: row(duration(), "1s", "Timeout of one check. If it is left out, `interval` limits it too."),
  rise: row(whole(1, 1000), 2, "Consecutive successes after which a backend is up."),
  fall: row(whole(1, 1000), 3, "Consecutive failures after which a backend is down."),
  port: row(whole(0, 65535), 0, "Port to check; 0 = the backend's own port. Ignored for Unix sockets."),
  method: row(choice(["GET", "HEAD"]), "GET", "http: request method."),
  path: secret(row(httpPath(), "/", "http: request path.")),
  host: row(
    httpHost(),
    "",
    `http: Host header, and with TLS the server name unless the pool's tls settings have one; "" = the backend's host and port.`,
  ),
  status: row(statusCodes(), "200-399", "http: status codes that count as success."),
  body: secret(row(text("text"), "", "http: text that the first 64 KiB of the body must contain.")),
  tls: row(
    flag(),
    false,
    "http, exchange, redis, smtp: speak TLS, with the pool's tls settings; without those, any certificate is accepted.",
  ),
  steps: row(list(step), [], "exchange: steps that send or expect something, in this order."),
  send: secret(row(text("text"), "", "exchange: text to send. `send` and `expect` are one step, in place of `steps`.")),
  expect: secret(row(text("text"), "", "exchange: text that the answer must contain.")),
  role: row(
    choice(["", "master", "replica"]),
    "",
    'redis: the role that counts as success; "" = any. For the roles of PostgreSQL use http and the REST API of Patroni.',
  ),
  user: secret(
    row(
      userName(),
      "",
      `mysql: logs in as this user, without a password, and quits; "" = quits after the greeting, which the server logs and counts as an aborted connection. postgres: starts a login as this user, and a request for a password counts as success; "" = no login.`,
    ),
  ),
  initial: row(
    choice(["up", "down"]),
    "up",
    "State before the first result; with `role` set it is down. The first result alone sets the state, without `rise` or `fall`.",
  ),
  agent_port: row(
    whole(0, 65535),
    0,
    "Port of an agent on the backend that speaks the protocol of HAProxy's agent-check: it answers with one line of up, down, drain, maint, or a percentage of the weight such as 50%; 0 = none. Ignored for Unix sockets.",
  ),
});

const passive = section('{ failures = 5, window = "10s" }', {
  failures: row(
    whole(1, 1_000_000),
    5,
    "Number of failures within `window`, on all workers together, after which a backend is ejected: it gets no new connections and keeps its open ones.",
  ),
  count: row(
    list(choice(["connect", "early_reset"]), 1, 'expected "connect", "early_reset" or both, found an empty array'),
    ["connect"],
    "What counts as a failure. connect: a connection attempt that fails, TLS handshake included. early_reset: a connection that the backend resets before the first byte of its answer.",
  ),
  window: row(duration(), "10s", "Period in which failures are counted."),
  eject_for: row(
    duration(),
    "10s",
    "Duration of an ejection. It doubles with each ejection in a row, up to 5m. The next ejection has the original duration again once the backend has been back for the duration of its last ejection plus `window`.",
  ),
  max_ejected: row(
    whole(0, 100),
    50,
    "Maximum percentage of the pool that may be ejected at once, rounded down, but at least one backend.",
  ),
});

const poolTls = section('{ ca = "certs/ca.pem", server_name = "db.example.com" }', {
  verify: row(flag(), true, "Verify the backend's certificate and its name."),
  ca: row(
    text("file"),
    "",
    `CA bundle, PEM; "" = the system's CA bundle, or the file that the environment variable SSL_CERT_FILE names. A system without one is an error.`,
  ),
  server_name: row(
    serverName(),
    "",
    `Server name that is sent (SNI) and verified; "" = the host name of the backend. For an IP address, no SNI is sent and the certificate must contain the address. Required for Unix sockets unless verify = false.`,
  ),
  alpn: row(list(protocolName()), [], "Protocols offered to the backend, in order of preference."),
  min_version: row(choice(["1.2", "1.3"]), "1.2", "Minimum TLS version."),
  cert: row(text("file"), "", "Client certificate followed by its chain, PEM. Needs `key`."),
  key: row(text("file"), "", "Private key of the client certificate, PEM, not encrypted. Needs `cert`."),
});

const queue = section('{ size = 100, timeout = "5s" }', {
  size: row(whole(0, connectionsMax), 0, "Maximum number of waiting connections, over all workers; 0 = no queue."),
  timeout: row(duration(), "5s", "Maximum time in the queue; then the connection ends as `queue_timeout`."),
});

const pool = section('{ backends = ["127.0.0.1:3000"] }', {
  balance: row(
    choice(BALANCES),
    "round_robin",
    "Load-balancing algorithm. All except first use weights. See docs/balancing.md.",
  ),
  hash_key: row(
    choice(HASH_KEYS),
    "client",
    "What source_hash hashes: the client's address by client_prefix, its address and port, or the server name (SNI) of its ClientHello. A connection without a server name is hashed by its address.",
  ),
  backends: required(
    list(
      shorthand("address", backend, "address to connect to or table", '"10.0.0.11:80"'),
      1,
      `expected at least one backend, found an empty array; write backends = ["127.0.0.1:3000"], or remove the pool`,
    ),
    "Backends: addresses, or tables with the options of `backends[]` below.",
  ),
  resolve: row(
    duration({ least: 10 }),
    "30s",
    "Interval of DNS lookups. If a lookup fails, the last good answer stays in use. Names are looked up in /etc/hosts and by DNS as configured in /etc/resolv.conf (name servers, search domains, ndots), not with other modules of nsswitch.conf such as mDNS or LDAP. A name that has no address yet is looked up every 2s.",
  ),
  connect_timeout: row(duration(), "3s", "Timeout of one connection attempt."),
  retries: row(
    whole(0, 100),
    2,
    "Number of further backends to try after a failed connect. There is no retry once data of the client has been sent.",
  ),
  source_address: row(
    sourceAddress(),
    "",
    `Local address of connections to the backends, health checks included; "" = chosen by the kernel. client = the address of the client, client_with_port = its port too: Linux, with the capability CAP_NET_RAW, and with routes that bring the backends' packets back to this machine; not for health checks, nor where client and backend are not both IPv4 or both IPv6.`,
  ),
  send_proxy: row(
    choice(["off", "v1", "v2"]),
    "off",
    "Version of the PROXY header that is sent to the backends, before TLS. It carries the address of the client.",
  ),
  send_proxy_on: later(row(choice(["first", "every"]), "first", "udp: which datagrams carry the PROXY v2 header.")),
  port: later(row(choice(["", "same"]), "", "same: connect to the port that the client connected to.")),
  on_down: row(
    choice(["keep", "reset"]),
    "keep",
    "What happens to the connections of a backend that goes down. keep: nothing. reset: they are reset (RST), also with on_abort = close.",
  ),
  slow_start: row(
    duration({ zero: "off" }),
    "0s",
    "Time in which a backend that comes up reaches its full weight, from 10 %. It applies to a backend that was down, ejected or drained, or that is added to a running pool, not to the backends at the start of lb. No effect with balance = source_hash and first.",
  ),
  panic_threshold: row(
    whole(0, 100),
    0,
    "Percentage of backends up below which health checks and ejections are ignored; 0 = never. Primaries and backups are counted separately. Backends that are drained or have weight 0 neither count nor get connections. If no primary is up and a backup is, the backups are used.",
  ),
  queue: row(
    queue,
    {},
    "Queue for connections that arrive when every backend has its max_connections. First come, first served.",
  ),
  keepalive: row(keepalive(), "75s", "TCP keepalive on connections to backends. No effect on Unix sockets."),
  health: row(health, {}, "Active health check. Default: tcp with these defaults."),
  passive: absent(passive, null, "Passive health check by real traffic. Default: off."),
  tls: absent(poolTls, null, "TLS to the backends. Default: no TLS."),
});

// ------------------------------------------------------------------ the file

export const file = section("{}", {
  workers: row(
    either(choice(["auto"]), whole(1, 256), "number"),
    "auto",
    `Number of worker threads; "auto" = one per CPU.`,
  ),
  max_connections: row(
    either(choice(["auto"]), whole(1, connectionsMax), "number"),
    "auto",
    `Maximum number of concurrent connections of the process; "auto" = as many as the open-files limit allows.`,
  ),
  shutdown_delay: row(
    duration({ zero: "none" }),
    "0s",
    "Time after SIGTERM in which /ready already fails and new connections are still accepted. Then shutdown_timeout begins.",
  ),
  shutdown_timeout: row(
    duration({ zero: "end them at once" }),
    "30s",
    "Time that open connections have to end after SIGTERM and shutdown_delay. A second SIGTERM ends them at once.",
  ),
  watch: row(
    flag(),
    true,
    "Reload when this file or a file that it names changes. A file that another process has open for writing is read when it is closed; a file that was truncated in place is read after 2s without a change. SIGHUP always reloads.",
  ),
  admin: row(admin, {}, "The admin endpoint."),
  log: row(log, {}, "The log and the access log."),
  otel: absent(otel, null, "Export of metrics and access lines to OpenTelemetry. Default: off."),
  listeners: row(named("listener", listener), {}, "Listeners: addresses that accept connections of clients."),
  pools: row(named("pool", pool), {}, "Pools: groups of backends."),
});

/** The content of the file, before paths, the content of files and default names are filled in (load.ts). */
export type FileConfig = InferOutput<typeof file>;

// ------------------------------------------------------------------ the loaded config

/** The whole config. Durations in milliseconds, bandwidths in bytes and rates in connections per second; paths absolute. */
export interface Config extends Omit<FileConfig, "admin" | "log" | "otel" | "listeners" | "pools"> {
  /** The tokens are the trimmed contents of their files; they must never be logged. `tls`: null = plain HTTP. */
  admin: Omit<FileConfig["admin"], "tls"> & {
    token: string | null;
    read_token: string | null;
    tls: CertificateConfig | null;
  };
  log: Omit<FileConfig["log"], "access" | "syslog"> & {
    access: "stdout" | "stderr" | "off" | { file: string } | { syslog: SyslogConfig };
  };
  otel: OtelConfig | null;
  /** In the order of the file. */
  listeners: ListenerConfig[];
  pools: PoolConfig[];
}

/** The values of `headers` must never be logged. */
export interface OtelConfig {
  endpoint: string;
  /** Milliseconds. */
  interval: number;
  headers: Record<string, string>;
  /** The CA certificates that verify the receiver; null without TLS. */
  ca_pem: string | null;
}

export interface SyslogConfig extends SyslogAddress {
  /** Its canonical text. */
  address: string;
  /** The CA certificates that verify the receiver; null without TLS. */
  ca_pem: string | null;
}

/** One step of a health check: at most one of its two ways to send, and of its three to expect, is used. */
export type HealthStep = FilePool["health"]["steps"][number];
export type FileListener = FileConfig["listeners"][number];
export type FileListenerTls = NonNullable<FileListener["tls"]>;
export type FilePool = FileConfig["pools"][number];
export type FileBackend = FilePool["backends"][number];
export type FilePoolTls = NonNullable<FilePool["tls"]>;

export interface ListenerConfig extends Omit<FileListener, "rate_limit" | "tls"> {
  /** null = no limit. */
  rate_limit: { rate: number; burst: number } | null;
  /** null = no TLS termination. */
  tls: ListenerTlsConfig | null;
}

/** Names in lower case, as in `sni` of the routes. PEM texts contain only the blocks that their names say. */
export interface ListenerTlsConfig extends Omit<FileListenerTls, "certificates"> {
  /** At least one; the first is the default. */
  certificates: CertificateConfig[];
  /** null where `client_ca` is "". */
  client_ca_pem: string | null;
  /** null where `client_crl` is "". */
  client_crl_pem: string | null;
}

/** A certificate that was valid, and matched its key, when the config was loaded. */
export interface CertificateConfig {
  cert: string;
  key: string;
  /** The leaf first, then the rest of the chain. */
  cert_pem: string;
  /** It must never be logged. */
  key_pem: string;
  /** The leaf's DNS names, in lower case, such as "example.com" and "*.example.com"; may be empty. */
  names: string[];
  /** The leaf's type of key, as named by node:crypto: "rsa", "ec", "ed25519". */
  key_type: string;
  /** When the leaf expires, in milliseconds since 1970. */
  not_after: number;
  /** SHA-256 of the leaf, in hexadecimal, lower case. */
  fingerprint: string;
}

export interface PoolConfig extends Omit<FilePool, "backends" | "tls"> {
  backends: BackendConfig[];
  /** null = no TLS. */
  tls: PoolTlsConfig | null;
}

export interface PoolTlsConfig extends FilePoolTls {
  /** The bundle that `ca` names, "" = the system's. null if nothing is verified. */
  ca_pem: string | null;
  /** null where `cert` is "". */
  cert_pem: string | null;
  /** null where `key` is "". It must never be logged. */
  key_pem: string | null;
}

export interface BackendConfig {
  endpoint: DialEndpoint;
  /** As given, else the address text. */
  name: string;
  weight: number;
  /** 0 = no limit. */
  max_connections: number;
  backup: boolean;
}
