// The proxies that are compared, each configured by its best practice for one thread: TCP mode, the same timeouts, no log, no health
// checks, no TCP keepalive. One row per contender.
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { KeyType } from "./certificates.ts";

export type Brand = "lb" | "haproxy" | "nginx" | "relay" | "direct";

export interface Contender {
  /** Unique; variants of one brand have different names. */
  name: string;
  brand: Brand;
  /** The difference from other contenders of the brand. */
  about?: string;
  /** The type of its certificate's key, if it terminates TLS. */
  tls?: KeyType;
  /** The files that it needs, by name, and the command that runs it in the foreground; undefined = the backend without a proxy. */
  setUp?: (site: Site) => { files: Record<string, string>; command: string[] };
}

export interface Site {
  folder: string;
  /** The port to listen on, and the port of the backend. */
  port: number;
  backendPort: number;
  /** The file with certificate and key; "" = no TLS. */
  certificate: string;
}

/** More than any scenario opens. */
export const connectionsMax = 7000;

export const lbPath = join(import.meta.dir, "../dist/lb");

export const lb: Contender = { name: "lb", brand: "lb", setUp: lbOf(lbPath) };

/** A contender of the brand lb with another binary. */
export function otherBuild(contender: Contender, binary: string): Contender {
  return { ...contender, name: otherBuildName, setUp: lbOf(binary) };
}

export const otherBuildName = "lb, other build";

function lbOf(binary: string): NonNullable<Contender["setUp"]> {
  return ({ folder, port, backendPort, certificate }) => ({
    files: {
      "lb.toml": `
workers = 1
max_connections = ${connectionsMax}
[admin]
enabled = false
[log]
access = "off"
[listeners.bench]
bind = "127.0.0.1:${port}"
pool = "nginx"
backlog = 4096
keepalive = "0s"
[listeners.bench.timeouts]
idle = "10m"
${certificate === "" ? "" : lbTls(certificate)}
[pools.nginx]
backends = ["127.0.0.1:${backendPort}"]
connect_timeout = "3s"
keepalive = "0s"
[pools.nginx.health]
type = "off"
`,
    },
    command: [binary, join(folder, "lb.toml")],
  });
}

export const haproxy: Contender = { name: "haproxy", brand: "haproxy", setUp: haproxyWith("") };

export const haproxySpliceAuto: Contender = {
  name: "haproxy splice-auto",
  brand: "haproxy",
  about: "`option splice-auto`",
  setUp: haproxyWith("option splice-auto"),
};

export const haproxySplice: Contender = {
  name: "haproxy splice",
  brand: "haproxy",
  about: "`option splice-request` and `option splice-response`",
  setUp: haproxyWith("option splice-request\n  option splice-response"),
};

export const nginx: Contender = {
  name: "nginx",
  brand: "nginx",
  setUp: ({ folder, port, backendPort, certificate }) => ({
    files: {
      "nginx.conf": `
${nginxPreamble(folder)}
stream {
  access_log off;
  server {
    listen 127.0.0.1:${port} ${certificate === "" ? "" : "ssl"} backlog=4096;
    ${certificate === "" ? "" : nginxTls(certificate)}
    proxy_pass 127.0.0.1:${backendPort};
    proxy_connect_timeout 3s;
    proxy_timeout 10m;
  }
}
`,
    },
    command: nginxCommand(folder),
  }),
};

/** A relay with nothing but Bun's sockets: the least that lb can cost on its runtime. */
export const bareRelay: Contender = {
  name: "bare relay",
  brand: "relay",
  setUp: ({ port, backendPort }) => ({
    files: {},
    command: [process.execPath, join(import.meta.dir, "bare-relay.ts"), String(port), String(backendPort)],
  }),
};

/** No proxy: what backend and load generators reach by themselves. */
export const direct: Contender = { name: "direct", brand: "direct" };

/** The same contenders with TLS towards their clients; the client chooses version, cipher and curve. */
export function withTls(tls: KeyType): Contender[] {
  return [lb, haproxy, nginx].map((contender) => ({ ...contender, tls }));
}

/** The first lines of every nginx configuration of the bench. */
export function nginxPreamble(folder: string): string {
  const module = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules"]
    .map((modules) => join(modules, "ngx_stream_module.so"))
    .find((file) => existsSync(file));
  return `
${module === undefined ? "" : `load_module ${module};`}
${process.getuid?.() === 0 ? "user root;" : ""}
daemon off;
worker_processes 1;
pid ${join(folder, "nginx.pid")};
error_log stderr crit;
events { worker_connections ${2 * connectionsMax + 1000}; multi_accept on; }`;
}

export function nginxCommand(folder: string): string[] {
  return ["nginx", "-p", folder, "-e", "stderr", "-c", join(folder, "nginx.conf")];
}

function lbTls(certificate: string): string {
  return `[listeners.bench.tls]
certificates = [{ cert = "${certificate}", key = "${certificate}" }]`;
}

/** TLS 1.3 is not enabled by default before nginx 1.23.4. */
function nginxTls(certificate: string): string {
  return `ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate ${certificate};
    ssl_certificate_key ${certificate};`;
}

function haproxyTls(certificate: string): string {
  return `ssl crt ${certificate} ssl-min-ver TLSv1.2`;
}

function haproxyWith(options: string): NonNullable<Contender["setUp"]> {
  return ({ folder, port, backendPort, certificate }) => ({
    files: {
      "haproxy.cfg": `
global
  nbthread 1
  maxconn ${connectionsMax}
defaults
  mode tcp
  timeout connect 3s
  timeout client 10m
  timeout server 10m
listen bench
  bind 127.0.0.1:${port} backlog 4096 ${certificate === "" ? "" : haproxyTls(certificate)}
  server nginx 127.0.0.1:${backendPort}
  ${options}
`,
    },
    command: ["haproxy", "-db", "-f", join(folder, "haproxy.cfg")],
  });
}
