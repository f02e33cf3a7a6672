// A real rsyslogd that receives by a unix socket, UDP, TCP and TLS, and writes the parts of each message that it has parsed.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll } from "vitest";
import { Authority } from "./certificates.ts";
import { eventually } from "./eventually.ts";
import { freePorts } from "./lb.ts";
import { missingOf, Server } from "./server.ts";

/** The parts of a message, with the names of rsyslog's RFC 5424 parser. */
export interface Received {
  pri: string;
  version: string;
  time: string;
  hostname: string;
  app: string;
  procid: string;
  msgid: string;
  sd: string;
  input: string;
  msg: string;
}

const PARTS = {
  pri: 'name="pri"',
  version: 'name="protocol-version"',
  time: 'name="timereported" dateFormat="rfc3339"',
  hostname: 'name="hostname"',
  app: 'name="app-name"',
  procid: 'name="procid"',
  msgid: 'name="msgid"',
  sd: 'name="structured-data"',
  input: 'name="inputname"',
  msg: 'name="msg"',
};

/** Why there is none here, or null. */
export const rsyslogMissing = await missingOf("rsyslogd", "openssl");

export class Rsyslog {
  readonly server: Server;
  readonly authority: Authority;
  /** In the form of `[log] syslog`. */
  readonly unix: string;
  readonly udp: string;
  readonly tcp: string;
  readonly tls: string;
  readonly #config: string;

  /** For a whole file of tests. */
  static async start(): Promise<Rsyslog> {
    const server = await Server.make("rsyslog");
    const authority = await Authority.make();
    const { cert, key } = await authority.leaf("localhost");
    const [udp, tcp, tls] = await freePorts(3);
    const rsyslog = new Rsyslog(server, authority, { udp: udp!, tcp: tcp!, tls: tls! }, { cert, key });
    afterAll(() => rsyslog.server[Symbol.asyncDispose]());
    await rsyslog.begin();
    return rsyslog;
  }

  private constructor(
    server: Server,
    authority: Authority,
    ports: { udp: number; tcp: number; tls: number },
    { cert, key }: { cert: string; key: string },
  ) {
    this.server = server;
    this.authority = authority;
    const socket = join(server.dir, "log");
    this.unix = `unix:${socket}`;
    this.udp = `udp://127.0.0.1:${ports.udp}`;
    this.tcp = `tcp://localhost:${ports.tcp}`;
    this.tls = `tls://localhost:${ports.tls}`;
    const parts = Object.entries(PARTS).map(([name, part]) => `property(outname="${name}" ${part} format="jsonf")`);
    this.#config = `
      global(workDirectory="${server.dir}" defaultNetstreamDriverCAFile="${authority.cert}"
        defaultNetstreamDriverCertFile="${cert}" defaultNetstreamDriverKeyFile="${key}")
      module(load="imuxsock" SysSock.Use="off")
      module(load="imudp")
      module(load="imptcp")
      module(load="imtcp" StreamDriver.Name="ossl" StreamDriver.Mode="1" StreamDriver.AuthMode="anon")
      input(type="imuxsock" Socket="${socket}" UseSpecialParser="off" UseSysTimeStamp="off" IgnoreTimestamp="off" RateLimit.Interval="0")
      input(type="imudp" address="127.0.0.1" port="${ports.udp}")
      input(type="imptcp" address="127.0.0.1" port="${ports.tcp}")
      input(type="imtcp" address="127.0.0.1" port="${ports.tls}")
      template(name="parts" type="list" option.jsonf="on") { ${parts.join("\n")} }
      action(type="omfile" file="${join(server.dir, "received")}" template="parts")
    `;
  }

  /** Starts it, also a second time. */
  async begin(): Promise<void> {
    const before = this.server.log().length;
    await Bun.write(join(this.server.dir, "rsyslog.conf"), this.#config);
    const files = ["-f", join(this.server.dir, "rsyslog.conf"), "-i", join(this.server.dir, "pid")];
    this.server.start(["rsyslogd", ["-n", ...files]]);
    const port = Number(this.tls.split(":").at(-1));
    await eventually("rsyslogd listens", async () => {
      const socket = await Bun.connect({ hostname: "127.0.0.1", port, socket: { data: () => undefined } }).catch(
        () => null,
      );
      socket?.terminate();
      return socket !== null;
    });
    if (/error/i.test(this.server.log().slice(before))) throw new Error(this.server.log());
  }

  end(): Promise<void> {
    return this.server.end("SIGKILL");
  }

  /** What it has received so far. */
  received(): Received[] {
    try {
      const lines = readFileSync(join(this.server.dir, "received"), "utf8").split("\n").slice(0, -1);
      return lines.map((line) => JSON.parse(line) as Received).filter(({ app }) => app === "lb");
    } catch {
      return [];
    }
  }
}
