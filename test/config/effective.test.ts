import { readFileSync, readdirSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { effectiveConfig } from "../../src/config/effective.ts";
import { loadConfig, parseConfig } from "../../src/config/load.ts";
import type { Config } from "../../src/config/schema.ts";

const minimal = `[listeners.web]
bind = ":8080"
pool = "app"
[pools.app]
backends = ["127.0.0.1:3000", { address = "127.0.0.1:3001", name = "b", weight = 3 }]
`;

type Pool = Record<string, unknown> & { health: Record<string, unknown> };

function effective(text: string, env: Record<string, string> = {}) {
  return effectiveConfig(text, { folder: "/etc/lb", env }) as Record<string, unknown> & {
    listeners: Record<string, Record<string, unknown>>;
    pools: Record<string, Pool>;
  };
}

describe("the effective config", () => {
  it("has the values of the file, and the default of every other option", () => {
    const config = effective(minimal);
    expect(config).toMatchObject({
      workers: "auto",
      shutdown_timeout: "30s",
      admin: { enabled: true, bind: "127.0.0.1:9900", token_file: "" },
      log: { level: "info" },
      listeners: { web: { bind: [":8080"], pool: "app", timeouts: { idle: "10m" }, client_prefix: { ipv6: 64 } } },
      pools: {
        app: {
          balance: "round_robin",
          backends: [
            { address: "127.0.0.1:3000", weight: 1, max_connections: 0, backup: false },
            { address: "127.0.0.1:3001", name: "b", weight: 3, max_connections: 0, backup: false },
          ],
          health: { type: "tcp", interval: "2s", timeout: "1s" },
        },
      },
    });
    expect(config.pools["app"]).not.toHaveProperty("tls");
    expect(config).not.toHaveProperty("otel");
  });

  it("has the timeout of a health check that follows from its interval", () => {
    const health = (text: string) => effective(`${minimal}health = { ${text} }\n`).pools["app"]!.health["timeout"];
    expect(health('interval = "500ms"')).toBe("500ms");
    expect(health('interval = "500ms", timeout = "1s"')).toBe("1s");
  });

  it("shows values from the environment, but free text only by the name of the variable", () => {
    const text = `${minimal.replace(":8080", ":${PORT}")}
[pools.app.health]
type = "exchange"
steps = [{ send = "AUTH \${SECRET}\\r\\n", expect = "$\${x}" }, { expect_regex = "\${SECRET}" }]
`;
    const env = { PORT: "9090", SECRET: "hunter2" };
    const config = effective(text, env);
    expect(config.listeners["web"]!["bind"]).toEqual([":9090"]);
    expect(config.pools["app"]!.health["steps"]).toMatchObject([
      { send: "AUTH ${SECRET}\r\n", expect: "$${x}" },
      { expect_regex: "${SECRET}" },
    ]);
    expect(JSON.stringify(config)).not.toContain("hunter2");
  });

  it("names files and the sockets to listen on so that they mean the same in any folder", () => {
    const config = effective(`
[admin]
bind = "unix:admin.sock"
token_file = "admin.token"
[log]
access = "log/access.log"
[listeners.web]
bind = ["unix:web.sock", "unix:@web", ":8080"]
pool = "app"
tls = { certificates = [{ cert = "../site.pem", key = "/keys/site.key" }] }
[pools.app]
backends = ["unix:app.sock"]
`);
    expect(config).toMatchObject({
      admin: { bind: "unix:/etc/lb/admin.sock", token_file: "/etc/lb/admin.token", read_token_file: "" },
      log: { access: "/etc/lb/log/access.log" },
      listeners: { web: { bind: ["unix:/etc/lb/web.sock", "unix:@web", ":8080"] } },
    });
    expect(config.listeners["web"]!["tls"]).toMatchObject({
      certificates: [{ cert: "/etc/site.pem", key: "/keys/site.key" }],
    });
    expect(config.pools["app"]!["backends"]).toMatchObject([{ address: "unix:app.sock" }]);
  });

  // Nothing is lost or added: as a file it is equivalent.
  const folder = fileURLToPath(new URL("./golden", import.meta.url));
  const files = readdirSync(folder).filter((name) => name.endsWith(".toml"));
  const env = { SECRET: "hunter2-is-secret", LB_POOL: "app", SSL_CERT_FILE: `${folder}/../fixtures/ca.pem` };
  const good = files.filter((name) => loadConfig(`${folder}/${name}`, env).ok);
  it.each(good)("of %s means the same as the file", (name) => {
    const text = readFileSync(`${folder}/${name}`, "utf8");
    const again = tomlOf(effectiveConfig(text, { folder, env }));
    expect(configOf(again, `${folder}/${name}`)).toEqual(configOf(text, `${folder}/${name}`));
  });

  function configOf(text: string, file: string): Config {
    const loaded = parseConfig(text, { file, env });
    if (!loaded.ok) throw new Error(`${JSON.stringify(loaded.problems)}\n${text}`);
    const { admin } = loaded.config;
    const absolute = (name: string): string => (name === "" ? "" : resolve(dirname(file), name));
    const named = { token_file: absolute(admin.token_file), read_token_file: absolute(admin.read_token_file) };
    return { ...loaded.config, admin: { ...admin, ...named } };
  }
});

/** JSON as TOML: each top-level key in an inline form. */
function tomlOf(config: Record<string, unknown>): string {
  return Object.entries(config)
    .map(([key, value]) => `${key} = ${inline(value)}\n`)
    .join("");
}

function inline(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(inline).join(", ")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  return `{ ${Object.entries(value)
    .map(([key, one]) => `${JSON.stringify(key)} = ${inline(one)}`)
    .join(", ")} }`;
}
