import { chmodSync, copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { createSecureContext } from "node:tls";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadConfig, parseConfig } from "../../src/config/load.ts";
import type { LoadResult } from "../../src/config/load.ts";
import type { Config } from "../../src/config/schema.ts";
import { SYSTEM_BUNDLES } from "../../src/config/system-ca.ts";

const fixture = (name: string) => new URL(`fixtures/${name}`, import.meta.url);
const day = 86_400_000;
const app = '[pools.app]\nbackends = ["127.0.0.1:3000"]\n';

/** Files are those of the fixtures, with this mode. */
function load(text: string, options: { now?: number; mode?: number } = {}): LoadResult {
  const { now = Date.UTC(2030, 0, 1), mode = 0o600 } = options;
  return parseConfig(text, {
    file: "/etc/lb/lb.toml",
    env: { SSL_CERT_FILE: "/system/ca.pem" },
    now,
    readFile: (path) => readFileSync(fixture(basename(path))),
    modeOf: () => mode,
  });
}

function listener(tls: string): string {
  return `[listeners.web]\nbind = ":443"\npool = "app"\n${app}[listeners.web.tls]\n${tls}\n`;
}

function pair(cert: string, key: string): string {
  return `certificates = [{ cert = "certs/${cert}", key = "certs/${key}" }]`;
}

function config(result: LoadResult): Config {
  if (!result.ok) throw new Error(JSON.stringify(result.problems));
  return result.config;
}

function told(result: LoadResult): string[] {
  const problems = result.ok ? result.warnings : result.problems;
  return problems.map(({ path, message }) => `${path}: ${message}`);
}

describe("a listener's TLS", () => {
  const result = load(
    listener(
      `${pair("site.pem", "site.key")}\nalpn = ["h2"]\nclient_auth = "optional"\nclient_ca = "certs/ca.pem"\nclient_crl = "clients.crl"`,
    ),
  );

  it("has its files read, and reports its certificates", () => {
    expect(config(result).listeners[0]?.tls).toEqual({
      certificates: [
        {
          cert: "/etc/lb/certs/site.pem",
          key: "/etc/lb/certs/site.key",
          cert_pem: readFileSync(fixture("site.pem"), "utf8"),
          key_pem: readFileSync(fixture("site.key"), "utf8"),
          names: ["example.com", "*.example.com"],
          key_type: "ec",
          not_after: Date.UTC(2120, 0, 1),
          fingerprint: expect.stringMatching(/^[0-9a-f]{64}$/),
        },
      ],
      unknown_sni: "default",
      min_version: "1.2",
      ciphers: "",
      alpn: ["h2"],
      client_auth: "optional",
      client_ca: "/etc/lb/certs/ca.pem",
      client_ca_pem: readFileSync(fixture("ca.pem"), "utf8"),
      client_crl: "/etc/lb/clients.crl",
      client_crl_pem: readFileSync(fixture("clients.crl"), "utf8"),
    });
  });

  it("names every file to watch, once", () => {
    const files = ["lb.toml", "certs/site.pem", "certs/site.key", "certs/ca.pem", "clients.crl"];
    expect(result.files).toEqual(files.map((file) => `/etc/lb/${file}`));
    const twice = load(listener('certificates = [{ cert = "combined.pem", key = "./combined.pem" }]'));
    expect(twice.files).toEqual(["/etc/lb/lb.toml", "/etc/lb/combined.pem"]);
  });

  it("names them also if they are broken, so that a corrected file is noticed", () => {
    const broken = load(listener(pair("broken.pem", "none.key")));
    expect(broken.ok).toBe(false);
    expect(broken.files).toEqual(["/etc/lb/lb.toml", "/etc/lb/certs/broken.pem", "/etc/lb/certs/none.key"]);
  });

  it("separates a certificate from a key in the same file", () => {
    const [certificate] =
      config(load(listener(pair("combined.pem", "combined.pem")))).listeners[0]?.tls?.certificates ?? [];
    expect(certificate?.cert_pem).toBe(readFileSync(fixture("site.pem"), "utf8"));
    expect(certificate?.key_pem).toBe(readFileSync(fixture("site.key"), "utf8"));
  });

  it("is left out if the file has none", () => {
    const plain = config(load(`[listeners.web]\nbind = ":80"\npool = "app"\n${app}`));
    expect([plain.listeners[0]?.tls, plain.pools[0]?.tls]).toEqual([null, null]);
  });
});

describe("a pool's TLS", () => {
  const pool = (tls: string) =>
    config(load(`[listeners.a]\nbind = ":1"\npool = "app"\n${app}[pools.app.tls]\n${tls}\n`)).pools[0];

  it("has its files read", () => {
    const made = pool('ca = "ca.pem"\nserver_name = "DB.example.com"\ncert = "other.pem"\nkey = "other.key"');
    expect(made?.tls).toEqual({
      verify: true,
      ca: "/etc/lb/ca.pem",
      ca_pem: readFileSync(fixture("ca.pem"), "utf8"),
      server_name: "db.example.com",
      alpn: [],
      min_version: "1.2",
      cert: "/etc/lb/other.pem",
      cert_pem: readFileSync(fixture("other.pem"), "utf8"),
      key: "/etc/lb/other.key",
      key_pem: readFileSync(fixture("other.key"), "utf8"),
    });
  });

  describe("without a CA bundle of its own", () => {
    /** The result on a system with these bundles. */
    const on = (bundles: readonly string[], env: Record<string, string> = {}, tls = ""): LoadResult =>
      parseConfig(`[listeners.a]\nbind = ":1"\npool = "app"\n${app}[pools.app.tls]\n${tls}\n`, {
        file: "/etc/lb/lb.toml",
        env,
        now: Date.UTC(2030, 0, 1),
        readFile: (path) => {
          if (bundles.includes(path)) return readFileSync(fixture("ca.pem"));
          throw Object.assign(new Error("not there"), { code: "ENOENT" });
        },
        modeOf: (path) => (bundles.includes(path) ? 0o644 : null),
      });

    it.each(SYSTEM_BUNDLES)("uses and watches the system's: %s", (path) => {
      const result = on([path]);
      expect(config(result).pools[0]?.tls?.ca_pem).toBe(readFileSync(fixture("ca.pem"), "utf8"));
      expect(result.files).toEqual(["/etc/lb/lb.toml", path]);
    });

    it("uses the file in SSL_CERT_FILE", () => {
      const result = on(["/own.pem", SYSTEM_BUNDLES[0]], { SSL_CERT_FILE: "/own.pem" });
      expect(config(result).pools[0]?.tls?.ca_pem).not.toBeNull();
      expect(result.files).toEqual(["/etc/lb/lb.toml", "/own.pem"]);
      expect(told(on([SYSTEM_BUNDLES[0]], { SSL_CERT_FILE: "/own.pem" }))).toEqual([
        'pools.app.tls.ca: the file "/own.pem" cannot be read: there is no such file',
      ]);
    });

    it("is refused if the system has none, with the cure", () => {
      const result = on([]);
      expect(result.ok ? [] : result.problems).toMatchObject([
        {
          path: "pools.app.tls.ca",
          message: '"" means the CA certificates of the system, and this system has none',
          hint: 'name a bundle, such as ca = "ca.pem"; or install the package ca-certificates; or set SSL_CERT_FILE',
        },
      ]);
    });

    it("needs none if nothing is verified", () => {
      expect(config(on([], {}, "verify = false")).pools[0]?.tls?.ca_pem).toBeNull();
    });
  });

  it("needs no file, also for backends that are IP addresses", () => {
    expect(pool("")?.tls).toEqual({
      verify: true,
      ca: "",
      ca_pem: readFileSync(fixture("ca.pem"), "utf8"),
      server_name: "",
      alpn: [],
      min_version: "1.2",
      cert: "",
      cert_pem: null,
      key: "",
      key_pem: null,
    });
  });
});

describe("the validity of a certificate", () => {
  const ends = Date.UTC(2021, 0, 1);
  const at = (now: number) => load(listener(pair("expired.pem", "other.key")), { now });

  it("causes a warning 14 days before it ends", () => {
    expect(told(at(ends - 15 * day))).toEqual([]);
    expect(told(at(ends - 13.5 * day))).toEqual([
      'listeners.web.tls.certificates[0].cert: the certificate in "certs/expired.pem" expires in 13 days, on 2021-01-01 00:00 UTC',
    ]);
    expect(told(at(ends - day))[0]).toContain("expires in 1 day, on");
    expect(told(at(ends - 1000))[0]).toContain("expires in less than a day, on");
    expect(at(ends - 1000).ok).toBe(true);
  });

  it("has ended a moment later, and has not begun a moment before", () => {
    expect(at(ends + 1000).ok).toBe(false);
    expect(told(at(ends + 1000))[0]).toContain("expired on 2021-01-01");
    expect(at(Date.UTC(2020, 0, 1) - 1000).ok).toBe(false);
    expect(told(at(Date.UTC(2020, 0, 1) - 1000))[0]).toContain("is not valid before 2020-01-01");
  });
});

describe("two certificates of one listener", () => {
  const both = (second: string) =>
    told(load(listener(`certificates = [{ cert = "site.pem", key = "site.key" }, ${second}]`)));

  it("may have the same names with different types of key", () => {
    expect(both('{ cert = "site-rsa.pem", key = "site-rsa.key" }')).toEqual([]);
  });

  it("cause a warning if the types are equal too", () => {
    expect(both('{ cert = "same-name.pem", key = "other.key" }')).toEqual([
      'listeners.web.tls.certificates[1]: has the names "example.com" and a key of type ec, as listeners.web.tls.certificates[0] has: the first is used',
    ]);
  });
});

describe("a key", () => {
  const keyOf = (key: string) => {
    const text = readFileSync(fixture(key), "utf8");
    return text.split("\n").filter((line) => line !== "" && !line.startsWith("-----"));
  };

  it.each(["site.key", "other.key", "site-rsa.key", "encrypted.key", "unsupported.key"])(
    "never shows a line of %s, wherever it is put by mistake",
    (key) => {
      const everywhere = [
        listener(pair(key, key)),
        listener(pair("site.pem", key)),
        listener(
          `${pair("site.pem", "site.key")}\nclient_auth = "required"\nclient_ca = "${key}"\nclient_crl = "${key}"`,
        ),
        `admin.token_file = "${key}"\n${listener(pair("expired.pem", key))}`,
      ];
      for (const text of everywhere) {
        const result = load(text);
        const said = JSON.stringify(result.ok ? result.warnings : result);
        for (const line of keyOf(key)) expect(said).not.toContain(line.slice(0, 16));
      }
    },
  );

  it("causes a warning only if every user can read it", () => {
    const text = listener(pair("site.pem", "site.key"));
    expect(told(load(text, { mode: 0o640 }))).toEqual([]);
    expect(told(load(text, { mode: 0o644 }))).toEqual([
      'listeners.web.tls.certificates[0].key: every user can read the file "certs/site.key"',
    ]);
  });
});

it("checks cipher lists with the library that will use them", () => {
  // The list of a common recommendation: unsupported suites are named, and the rest is used.
  const list = "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:DHE-RSA-AES128-GCM-SHA256";
  expect(() => createSecureContext({ ciphers: list })).not.toThrow();
  expect(told(load(listener(`${pair("site.pem", "site.key")}\nciphers = "${list}"`)))).toEqual([
    'listeners.web.tls.ciphers: ignored, because the TLS library does not know them: "DHE-RSA-AES128-GCM-SHA256"',
  ]);
});

describe("on a disk", () => {
  let folder = "";
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "lb-tls-"));
    for (const file of ["site.pem", "site.key", "other.key"]) copyFileSync(fixture(file), join(folder, file));
    chmodSync(join(folder, "site.key"), 0o600);
    writeFileSync(join(folder, "lb.toml"), listener('certificates = [{ cert = "site.pem", key = "site.key" }]'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it("a broken pair makes the whole config invalid, and a repaired one makes it valid", () => {
    const path = join(folder, "lb.toml");
    expect(told(loadConfig(path, {}))).toEqual([]);
    copyFileSync(join(folder, "other.key"), join(folder, "site.key"));
    expect(told(loadConfig(path, {}))[0]).toContain("does not match the certificate");
    copyFileSync(fixture("site.key"), join(folder, "site.key"));
    expect(loadConfig(path, {}).ok).toBe(true);
    chmodSync(join(folder, "site.key"), 0o604);
    expect(told(loadConfig(path, {}))[0]).toContain("every user can read");
  });
});
