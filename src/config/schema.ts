// The single list of options. Each row is one option: its kind of value, its default, what it means. Types, validation, the
// JSON Schema and docs/config.md come from here. `later(…)` around a row reserves an option whose feature does not exist
// yet, and the second array of a `choice` reserves words; moving them out is all that turning on takes here.
import type { InferOutput } from "valibot";
import {
  addressOrNone,
  bandwidth,
  bindAddress,
  choice,
  cidr,
  dialAddress,
  duration,
  flag,
  nameText,
  protocolName,
  rate,
  reserving,
  serverName,
  sniPattern,
  text,
  whole,
} from "./kinds.ts";
import type { DialEndpoint } from "./kinds.ts";
import { absent, either, later, list, named, oneOrMore, required, row, section, shorthand } from "./rows.ts";

const connectionsMax = 10_000_000;

/** Time before the first keepalive probe, within what the kernel takes. */
const keepalive = () => duration({ least: 1000, most: 32_767_000, zero: "off" });

// ------------------------------------------------------------------ the process

const admin = section({
  enabled: row(flag(), true, "Serve /metrics, /live, /ready and the JSON API."),
  bind: row(bindAddress(), "127.0.0.1:9900", "Where: an address, or a Unix socket, which is made with mode 0600."),
  token_file: row(
    text("file"),
    "",
    `A file with the bearer token for everything but /live and /ready. Required where bind is neither a loopback address nor a Unix socket. "" = no token.`,
  ),
  read_token_file: later(row(text("file"), "", "A file with a second token that may only read, for Prometheus.")),
  tls: later(
    row(
      section({
        cert: row(text("file"), "", "The certificate with its chain, PEM."),
        key: row(text("file"), "", "Its private key, PEM and not encrypted."),
      }),
      {},
      "HTTPS; left out = HTTP.",
    ),
  ),
});

const log = section({
  level: row(choice(["debug", "info", "warn", "error"]), "info", "The least grave messages that are logged."),
  format: row(choice(["text", "json"]), "text", "How a line is written, in the log and in the access log."),
  access: row(
    reserving(["syslog"], text(`"stdout", "stderr", "off" or a file`, 1)),
    "stdout",
    "Where the access log goes: one line for each connection, when it ends. SIGUSR1 reopens files.",
  ),
  syslog: later(row(text("address", 1), "unix:/dev/log", `Where access = "syslog" sends its lines, RFC 5424.`)),
});

const otel = section({
  endpoint: required(text("URL", 1), "Where metrics and access lines go: OTLP over HTTP."),
  interval: row(duration(), "10s", "Time between two deliveries."),
  headers: row(section({}), {}, "Headers of each request."),
});

// ------------------------------------------------------------------ where clients come in

const listenerTimeouts = section({
  handshake: row(duration(), "10s", "From accept until PROXY header, ClientHello and TLS handshake are all done."),
  idle: row(duration({ zero: "never" }), "10m", "No byte either way for this long ends the connection."),
  half_close: row(
    duration({ zero: "never" }),
    "1m",
    "One side has sent FIN, and no byte comes from the other for this long.",
  ),
  lifetime: row(
    duration({ zero: "unlimited" }),
    "0s",
    "Longest life of one connection; it ends within the last 10 % at random.",
  ),
});

const certificate = section({
  cert: required(
    text("file", 1),
    "The certificate, then the rest of its chain, PEM. It must be valid today; a chain out of order gets a warning.",
  ),
  key: required(
    text("file", 1),
    "Its private key, PEM and not encrypted. May be the same file as `cert`. One that every user can read gets a warning.",
  ),
});

const listenerTlsRows = {
  certificates: required(
    list(certificate, 1, "expected at least one certificate, found an empty array"),
    "Chosen by SNI from each certificate's own names (a wildcard covers one label); the first is the default. An RSA and an ECDSA certificate may bear the same name; of two with the same type of key the first is used.",
  ),
  unknown_sni: row(
    choice(["default", "reject"]),
    "default",
    "A client's name that no certificate bears, or no name: the default certificate, or a TLS alert.",
  ),
  min_version: row(choice(["1.2", "1.3"]), "1.2", "Minimum TLS version."),
  ciphers: row(
    text("text"),
    "",
    `TLS 1.2 cipher list in OpenSSL's form; "" = the runtime's default. The suites of TLS 1.3 are always on.`,
  ),
  alpn: row(
    list(protocolName()),
    [],
    `Our protocols, in order of preference, such as "h2" and "http/1.1". A client that offers none of them is refused; empty = none is negotiated.`,
  ),
  client_auth: row(
    choice(["off", "optional", "required"]),
    "off",
    "Whether clients show a certificate; optional and required need client_ca. optional: none is fine, a bad one is refused.",
  ),
  client_ca: row(text("file"), "", "CA bundle, PEM, that client certificates are checked against."),
  client_crl: row(text("file"), "", "Revoked client certificates: PEM, one or more X509 CRL."),
};

const listenerTls = section(listenerTlsRows, { unknown_name: "unknown_sni" });

const route = section({
  sni: row(
    list(sniPattern()),
    [],
    "Names the client asked for, any of them; `*.` covers one label. Without tls the ClientHello is read and TLS passed through. Empty = any name, and none.",
  ),
  alpn: row(list(protocolName()), [], "Protocols the client offered, any of them; empty = any."),
  clients: row(list(cidr()), [], "Addresses of the client, the believed one behind a PROXY header; empty = any."),
  pool: required(text("pool's name", 1), "Where such connections go."),
});

/** Of UDP and TPROXY. */
const laterOfListeners = {
  responses: later(row(whole(0, 1_000_000), 0, "udp: a session ends after so many answers; 0 = at its idle timeout.")),
  requests: later(row(whole(0, 1_000_000), 0, "udp: a session ends after so many datagrams of the client; 0 = never.")),
  datagram_rate_limit: later(
    absent(
      section({
        rate: required(rate(), "Datagrams in the long run."),
        burst: absent(whole(1, 1_000_000), null, "At once."),
      }),
      null,
      "udp: datagrams of one client; what is over it is dropped and counted.",
    ),
  ),
  quic: later(row(flag(), false, "udp: routes by SNI and ALPN of the QUIC Initial.")),
  freebind: later(row(flag(), false, "Bind an address that this machine does not have yet.")),
  transparent: later(row(flag(), false, "TPROXY: accept what was not addressed to this machine.")),
};

const listenerRows = {
  bind: required(oneOrMore(bindAddress()), "Where to listen: one address or an array of them."),
  protocol: row(choice(["tcp"], ["udp"]), "tcp", "What is spoken there."),
  pool: absent(
    text("pool's name", 1),
    null,
    "The pool for what no route takes; without it such connections are refused.",
  ),
  backlog: row(
    whole(1, 2_147_483_647),
    4096,
    "Connections that may wait to be accepted; capped by the kernel's somaxconn.",
  ),
  worker_affinity: row(
    choice(["connection", "client"]),
    "connection",
    "Which worker gets a connection. connection: the kernel's spread over (address, port) pairs. client: by source address, so a client stays with one worker, and its TLS sessions resume.",
  ),
  keepalive: row(keepalive(), "75s", "TCP keepalive towards clients. Without effect on Unix sockets."),
  allow: row(list(cidr()), [], "Clients that may connect; empty = everyone."),
  deny: row(list(cidr()), [], "Clients that may not; wins over allow."),
  proxy_protocol: row(
    choice(["off", "required", "optional"]),
    "off",
    "Whether a PROXY header (v1 and v2 both) comes first; required and optional need trusted_proxies.",
  ),
  trusted_proxies: row(
    list(cidr()),
    [],
    "Whose PROXY header is believed. From others: required refuses the connection, optional treats the bytes as the client's own. A peer on a Unix socket has no address and is always believed, so a listener with Unix sockets alone needs none.",
  ),
  client_prefix: row(
    section({
      ipv4: row(whole(1, 32), 32, "Leading bits of an IPv4 address."),
      ipv6: row(whole(1, 128), 64, "Leading bits of an IPv6 address."),
    }),
    {},
    "What counts as one client, for every limit by client.",
  ),
  max_connections: row(whole(0, connectionsMax), 0, "Connections at once on this listener; 0 = no limit of its own."),
  max_connections_per_client: row(whole(0, connectionsMax), 0, "Connections at once of one client; 0 = no limit."),
  rate_limit: absent(
    section({
      rate: required(rate(), "New connections of one client in the long run."),
      burst: absent(
        whole(1, 1_000_000),
        null,
        "New connections of one client at once. Left out: what `rate` allows in one second, at least 1.",
      ),
    }),
    null,
    "New connections of one client: a token bucket, exact over all workers together; left out = no limit.",
  ),
  over_limit: row(choice(["reset", "close"]), "reset", "What refused clients see: reset (RST) or close (FIN)."),
  dry_run: later(
    row(
      list(choice(["rate_limit", "max_connections_per_client", "bandwidth"])),
      [],
      "Limits that are counted and logged as they would act, and do not act.",
    ),
  ),
  bandwidth: row(
    section({
      upload: absent(bandwidth(), 0, "From the client; left out = no limit."),
      download: absent(bandwidth(), 0, "To the client; left out = no limit."),
      per: row(choice(["connection"], ["client", "listener"]), "connection", "What shares the limit."),
    }),
    {},
    "Bytes per second; left out = no limit.",
  ),
  timeouts: row(listenerTimeouts, {}, "When connections are ended."),
  tls: absent(listenerTls, null, "Present = TLS is terminated here."),
  routes: row(
    list(route),
    [],
    "The first that matches wins; all the conditions given must hold. One without conditions takes every connection.",
  ),
  ...laterOfListeners,
};

const listener = section(listenerRows, { steer: "worker_affinity" });

// ------------------------------------------------------------------ where connections go

const backend = section({
  address: required(
    dialAddress(),
    "Where to connect to. A name that resolves to several addresses is that many backends.",
  ),
  name: absent(nameText(), null, "Its name in logs and metrics. Left out: its address."),
  weight: row(whole(0, 256), 1, "Its share of the connections; 0 = no new connections."),
  max_connections: row(whole(0, connectionsMax), 0, "Connections at once; 0 = no limit."),
  backup: row(flag(), false, "Used only when no other backend is up."),
});

const step = section({
  send: row(text("text"), "", "Sends the text as UTF-8."),
  send_hex: row(text("text"), "", "Sends bytes."),
  expect: row(text("text"), "", "The answer must contain the text."),
  expect_hex: row(text("text"), "", "The answer must contain the bytes."),
  expect_regex: row(text("text"), "", "The answer must match the regular expression."),
});

const health = section({
  type: row(
    choice(["tcp", "tls", "off"], ["http", "exchange", "redis", "postgres", "mysql", "smtp", "ssh"]),
    "tcp",
    "How a backend is checked. tcp: it accepts a connection. tls: it also completes a TLS handshake, with the pool's tls settings; without such, any certificate will do.",
  ),
  interval: row(duration({ least: 10 }), "2s", "Time between checks, with up to 10 % jitter."),
  fast_interval: later(
    row(
      duration({ zero: "interval" }),
      "0s",
      "Time between checks while the state is changing: after the first result against it.",
    ),
  ),
  timeout: row(duration(), "1s", "How long one check may take."),
  rise: row(whole(1, 1000), 2, "Successes in a row to come up; a backend starts up."),
  fall: row(whole(1, 1000), 3, "Failures in a row to go down."),
  port: row(whole(0, 65535), 0, "The port checked; 0 = the backend's own. Without meaning for Unix sockets."),
  method: later(row(choice(["GET", "HEAD"]), "GET", "http: the method.")),
  path: later(row(text("text", 1), "/", "http: the path.")),
  host: later(row(text("text"), "", "http: the Host header.")),
  status: later(row(text("text", 1), "200-399", "http: statuses that count as success.")),
  body: later(row(text("text"), "", "http: what the first 64 KiB of the body must contain.")),
  tls: later(row(flag(), false, "http: speak HTTPS.")),
  steps: later(row(list(step), [], "exchange: what is sent and expected, in order.")),
  send: later(row(text("text"), "", "exchange: bytes to send.")),
  expect: later(row(text("text"), "", "exchange: what the answer must contain.")),
  role: later(row(choice(["", "master", "replica"]), "", 'redis: the role that counts as success; "" = any.')),
  user: later(row(text("text"), "", "mysql, postgres: the user of a login without a password.")),
  initial: later(
    row(choice(["up", "down"]), "up", "State before the first result, which counts alone. down where role is set."),
  ),
  agent_port: later(
    row(whole(0, 65535), 0, "Port of an agent that answers up, down, drain, maint or a weight such as 50%; 0 = none."),
  ),
});

const passive = section({
  failures: row(whole(1, 1_000_000), 5, "Failed connects within `window` that eject a backend."),
  count: row(
    list(choice(["connect", "early_reset"])),
    ["connect"],
    "What is a failure: a failed connect, or a reset before the first byte of an answer.",
  ),
  window: row(duration(), "10s", "How long a failure counts."),
  eject_for: row(duration(), "10s", "How long a backend is ejected; doubled at each ejection in a row, up to 5m."),
  max_ejected: row(whole(0, 100), 50, "Percent of the pool that may be ejected at most."),
});

const poolTls = section({
  verify: row(flag(), true, "Check the backend's certificate, and that it bears the name."),
  ca: row(text("file"), "", `CA bundle, PEM; "" = the system's.`),
  server_name: row(
    serverName(),
    "",
    `SNI and the name checked; "" = the backend's host name. Where that is an IP address, the certificate must bear the address, and no SNI is sent. Required for Unix sockets, unless verify = false.`,
  ),
  alpn: row(list(protocolName()), [], "Protocols offered, in order of preference."),
  min_version: row(choice(["1.2", "1.3"]), "1.2", "Minimum TLS version."),
  cert: row(text("file"), "", "Client certificate with its chain, PEM; with `key`."),
  key: row(text("file"), "", "Its private key, PEM and not encrypted; with `cert`."),
});

const queue = section({
  size: later(row(whole(0, connectionsMax), 0, "Connections that may wait; 0 = none.")),
  timeout: row(duration(), "5s", "How long one may wait."),
});

const pool = section({
  balance: row(
    choice(["round_robin", "least_connections"], ["random_two", "least_latency", "source_hash", "first"]),
    "round_robin",
    "How a backend is picked. All but first heed weights.",
  ),
  hash_key: later(row(choice(["client", "client_port", "sni"]), "client", "What source_hash goes by.")),
  backends: required(
    list(
      shorthand("address", backend, "address to connect to or table"),
      1,
      `expected at least one backend, found an empty array; write backends = ["127.0.0.1:3000"], or remove the pool`,
    ),
    "Where connections go.",
  ),
  resolve: row(
    duration({ least: 10 }),
    "30s",
    "How often names are looked up again; a failed look-up keeps the last good answer.",
  ),
  connect_timeout: row(duration(), "3s", "For one attempt to connect."),
  retries: row(
    whole(0, 100),
    2,
    "Further backends tried when a connect fails, before any byte of the client has gone out.",
  ),
  source_address: row(
    reserving(["client", "client_with_port"], addressOrNone()),
    "",
    `Local address of connections to backends; "" = the kernel's choice.`,
  ),
  send_proxy: row(
    choice(["off", "v1", "v2"]),
    "off",
    "Send a PROXY header of that version to the backends, first of all, before TLS. It tells the address of the client.",
  ),
  send_proxy_on: later(row(choice(["first", "every"]), "first", "udp: which datagrams bear the PROXY v2 header.")),
  port: later(row(choice(["", "same"]), "", "same: the backend's port is the one that the client connected to.")),
  on_down: row(choice(["keep", "reset"]), "keep", "A backend that goes down: keep its connections, or reset them."),
  slow_start: later(
    row(duration({ zero: "off" }), "0s", "A backend that comes up reaches its full weight over this long."),
  ),
  panic_threshold: later(
    row(whole(0, 100), 0, "Percent: with fewer backends up than this, health is ignored; 0 = never."),
  ),
  queue: row(queue, {}, "Connections that may wait when every backend is full."),
  keepalive: row(keepalive(), "75s", "TCP keepalive towards backends. Without effect on Unix sockets."),
  health: row(health, {}, "Active check; left out = tcp with these defaults."),
  passive: later(absent(passive, null, "Real traffic as a check; left out = off.")),
  tls: absent(poolTls, null, "Present = TLS towards the backends."),
});

// ------------------------------------------------------------------ the file

export const file = section({
  workers: row(
    either(choice(["auto"]), whole(1, 256), "number"),
    "auto",
    `Event-loop threads, each with its own sockets; "auto" = one per CPU.`,
  ),
  max_connections: row(
    either(choice(["auto"]), whole(1, connectionsMax), "number"),
    "auto",
    `Proxied connections of the whole process; "auto" = what the open-files limit allows.`,
  ),
  shutdown_delay: later(
    row(
      duration({ zero: "none" }),
      "0s",
      "After SIGTERM: /ready fails at once, but new connections are accepted for this long. Then shutdown_timeout begins.",
    ),
  ),
  shutdown_timeout: row(
    duration({ zero: "end them at once" }),
    "30s",
    "After SIGTERM: how long live connections may go on; a second SIGTERM ends at once.",
  ),
  watch: row(flag(), true, "Reload by itself when this file, or a file it names, changes; SIGHUP reloads always."),
  admin: row(admin, {}, "The admin endpoint."),
  log: row(log, {}, "The log and the access log."),
  otel: later(absent(otel, null, "Sends metrics and access lines by OpenTelemetry's protocol; left out = off.")),
  listeners: row(named("listener", listener), {}, "Where clients come in."),
  pools: row(named("pool", pool), {}, "Where connections go."),
});

/** What the file says, before paths, the content of files and left-out names are filled in (load.ts). */
export type FileConfig = InferOutput<typeof file>;

// ------------------------------------------------------------------ what everyone else sees

/** The whole config. Durations in milliseconds, bandwidths in bytes and rates in connections per second; paths absolute. */
export interface Config extends Omit<FileConfig, "admin" | "log" | "listeners" | "pools"> {
  /** `token` is the trimmed content of `token_file`; it must never be logged. */
  admin: FileConfig["admin"] & { token: string | null };
  log: Omit<FileConfig["log"], "access"> & { access: "stdout" | "stderr" | "off" | { file: string } };
  /** In the order of the file. */
  listeners: ListenerConfig[];
  pools: PoolConfig[];
}

export type FileListener = FileConfig["listeners"][number];
export type FileListenerTls = NonNullable<FileListener["tls"]>;
export type FilePool = FileConfig["pools"][number];
export type FilePoolTls = NonNullable<FilePool["tls"]>;

export interface ListenerConfig extends Omit<FileListener, "rate_limit" | "tls"> {
  /** null = no limit. */
  rate_limit: { rate: number; burst: number } | null;
  /** null = TLS is not terminated here. */
  tls: ListenerTlsConfig | null;
}

/** Names in lower case, as in `sni` of the routes. PEM texts hold only the blocks that their names tell. */
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
  /** The leaf's DNS names, in lower case, such as "example.com" and "*.example.com"; none at all is possible. */
  names: string[];
  /** The leaf's type of key, as node:crypto has it: "rsa", "ec", "ed25519". */
  key_type: string;
  /** When the leaf expires, in milliseconds since 1970. */
  not_after: number;
  /** SHA-256 of the leaf, in hexadecimal, lower case. */
  fingerprint: string;
}

export interface PoolConfig extends Omit<FilePool, "backends" | "tls"> {
  backends: BackendConfig[];
  /** null = plain. */
  tls: PoolTlsConfig | null;
}

export interface PoolTlsConfig extends FilePoolTls {
  /** null where `ca` is "": the system's. */
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
