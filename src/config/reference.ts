// docs/config.md: the reference of all options, made from the schema.
import type { RowInfo, Rows } from "./rows.ts";
import { file } from "./schema.ts";
import type { Kind } from "./wording.ts";

type Section = Kind<unknown, unknown> & { entries: Rows };

/** The text of docs/config.md. */
export function reference(): string {
  return `${[introduction, ...sections(file as unknown as Section, ""), ending].join("\n\n")}\n`;
}

const introduction = `# Configuration

lb reads one TOML 1.0 file of at most 16 MiB: \`lb lb.toml\`. \`lb check lb.toml\` reports every problem in it. The smallest file that works:

\`\`\`toml
[listeners.web]
bind = ":8080"
pool = "app"

[pools.app]
backends = ["127.0.0.1:3000", "127.0.0.1:3001"]
\`\`\`

Editors with TOML schema support (Taplo, Even Better TOML) complete and check the file if its first line is
\`#:schema ./lb.schema.json\`. \`lb schema\` prints that schema.

Options marked _not supported yet_ are reserved. lb refuses them and never ignores them.

## Values

- **duration**: a number with a unit, \`"250ms"\`, \`"1.5s"\`, \`"10m"\`, \`"1h"\`, \`"1d"\`; at most 24 days. One unit only: \`"90m"\`, not \`"1h30m"\`. \`"0s"\` disables the limit where the table says so, and is refused elsewhere.
- **size**: a number with a unit, \`"64KiB"\`, \`"1MB"\`; from 4KiB to 1GiB. KB, MB and GB are decimal, KiB, MiB and GiB binary, B is a byte, bit is a bit. Units are case-sensitive.
- **bandwidth**: a number with such a unit per second, \`"10MB/s"\`, \`"500Kbit/s"\`.
- **rate**: a number per period, \`"100/s"\`, \`"600/m"\`, \`"1000/h"\`; more than 0, at most a million a second.
- **address to listen on**: \`"10.0.0.1:80"\`, \`"[2001:db8::1]:80"\`, \`":8080"\` (every address, IPv4 and IPv6), \`"unix:/run/lb.sock"\`, \`"unix:@abstract"\`. \`"0.0.0.0:80"\` is every IPv4 address, \`"[::]:80"\` every IPv6 address. Host names and port 0 are refused.
- **address to connect to**: the same without \`":8080"\`, and with host names: \`"name.example:80"\`.
- **CIDR**: \`"10.0.0.0/8"\`, \`"2001:db8::/32"\`, or one address. Bits beyond the prefix must be 0.
- **name**: letters, digits, \`_\`, \`-\` and \`.\`; the first character is a letter or digit; at most 64 characters. The names of listeners and pools have the same form.
- **file**: a path relative to the folder of the config file. Paths of Unix sockets are relative to it too, and have at most 107 bytes.

\`\${NAME}\` in a string is the environment variable NAME; one that is not set is an error. \`$\${\` is a literal \`\${\`.

## Errors

lb reports every problem of the file in one run, with line, column and the path of the option:

\`\`\`text
lb.toml:12:3: pools.web.backends[1].weight: expected a whole number from 0 to 256, found 300
lb.toml:14:1: pools.web.conect_timeout: there is no such option
  did you mean "connect_timeout"?
2 problems
\`\`\`

An error of TOML syntax also shows the line with a caret.

Line and column are those of the key, or of the element in an array. Values from the environment are not shown. The exit code of \`lb check\` is 0 for a good file and 2 for a bad one. Warnings, such as a pool that no listener uses, do not change the exit code.

Two listeners cannot have the same address; \`":80"\` collides with \`"0.0.0.0:80"\` and \`"[::]:80"\`, but not with \`"10.0.0.1:80"\`, which then gets the connections to that address. No address and no name may appear twice among the backends of a pool.

## Certificates and keys

Certificates, keys and revocation lists are PEM; other content of the files is ignored, so a certificate and its key may share one file. lb reads them when it loads the config, and watches them with it. A reload that finds a broken file changes nothing.

lb refuses a file that cannot be read or is not PEM, a certificate that has expired or is not valid yet, a key that is encrypted or does not match its certificate, a chain that does not begin with the certificate of the key, and a CA bundle in which every certificate has expired. lb warns 14 days before a certificate expires, and about a key that every user of the machine can read, a chain in the wrong order, and a certificate with the same name and key type as one before it.

The names of a certificate are the DNS names of its subjectAltName. The common name is used only if there is no subjectAltName. Internationalized names are written in their ASCII form (\`xn--…\`) everywhere.`;

const ending = `## Example: TLS, routes and PROXY headers

\`\`\`toml
[listeners.https]
bind = ":443"
pool = "web"
proxy_protocol = "required"
trusted_proxies = ["10.0.0.0/8"]

[listeners.https.tls]
certificates = [
  { cert = "certs/site.pem", key = "certs/site.key" },
  { cert = "certs/site-rsa.pem", key = "certs/site-rsa.key" },
]
alpn = ["h2", "http/1.1"]

[[listeners.https.routes]]
sni = ["api.example.com", "*.api.example.com"]
pool = "api"

[pools.web]
backends = ["10.0.0.11:80", "10.0.0.12:80"]
send_proxy = "v2"

[pools.api]
backends = ["api.internal:8443"]
health = { type = "tls" }
tls = { ca = "certs/ca.pem" }
\`\`\`

## Example: all sections

\`\`\`toml
shutdown_timeout = "1m"

[admin]
bind = "127.0.0.1:9900"

[log]
format = "json"
access = "off"

[listeners.edge]
bind = ["0.0.0.0:443", "[::]:443"]
pool = "edge"
allow = ["10.0.0.0/8", "2001:db8::/32"]
max_connections_per_client = 100
rate_limit = { rate = "100/s", burst = 200 }
bandwidth = { download = "10MB/s" }
timeouts = { idle = "1h" }

[pools.edge]
balance = "least_connections"
backends = [
  "10.0.0.11:443",
  { address = "10.0.0.12:443", name = "big", weight = 3, max_connections = 500 },
  { address = "spare.example:443", backup = true },
]
connect_timeout = "1s"
health = { interval = "5s", fall = 2 }
\`\`\``;

/** The titles above the options of a section. */
const titles: Record<string, string> = {
  "": "## The process",
  admin: "## [admin]",
  log: "## [log]",
  otel: "## [otel]",
  listeners: "## [listeners.NAME]",
  pools: "## [pools.NAME]",
};

function* sections(section: Section, path: string): Generator<string> {
  const rows = Object.entries(section.entries).map(([key, { row }]) => ({ key, row }));
  const own = rows.filter(({ row }) => !isTableOfNames(row) && (path !== "" || sectionOf(row.kind) === null));
  yield `${titles[path] ?? `### ${path}`}\n\n${table(own)}`;
  for (const { key, row } of rows) {
    const below = sectionOf(row.kind);
    if (below === null) continue;
    const at = path === "" ? key : `${path.replace(/^(listeners|pools)$/, "$1.NAME")}.${key}`;
    const name = isArrayOfTables(row) ? `${at}[]` : at;
    yield* sections(below, name);
  }
}

function table(rows: { key: string; row: RowInfo }[]): string {
  const cells = rows.map(({ key, row }) => [`\`${key}\``, typeText(row), defaultText(row), meaning(row)]);
  return layOut([["Option", "Value", "Default", "Meaning"], ...cells]);
}

/** Aligned columns if the lines are short enough, as the formatter does it; else without padding. */
function layOut(lines: string[][]): string {
  const widths = [0, 1, 2, 3].map((column) => Math.max(3, ...lines.map((cells) => (cells[column] ?? "").length)));
  const padded = widths.reduce((sum, width) => sum + width + 3, 1) <= 120;
  const print = (cells: string[]) =>
    `| ${cells.map((cell, i) => (padded ? cell.padEnd(widths[i] ?? 0) : cell)).join(" | ")} |`;
  const [head = [], ...body] = lines;
  const rule = widths.map((width) => "-".repeat(padded ? width : 3));
  return [head, rule, ...body].map(print).join("\n");
}

function typeText(row: RowInfo): string {
  return row.kind.words.replace(/"[^"]*"/g, "`$&`").replaceAll("(not supported yet)", "(_not supported yet_)");
}

function defaultText(row: RowInfo): string {
  if (row.required) return "required";
  if (row.default === undefined || sectionOf(row.kind) !== null) return row.kind.words === "table" ? "" : "—";
  return `\`${JSON.stringify(row.default)}\``;
}

function meaning(row: RowInfo): string {
  return (row.later ? `_Not supported yet._ ${row.doc}` : row.doc).replace(/"[^"]*"/g, "`$&`");
}

function sectionOf(kind: Kind<unknown, unknown>): Section | null {
  if ("entries" in kind) return kind as Section;
  // Of an array its elements, of a table with a shorthand the table.
  const below = "item" in kind ? kind.item : "full" in kind ? kind.full : null;
  return below === null ? null : sectionOf(below as Kind<unknown, unknown>);
}

function isTableOfNames(row: RowInfo): boolean {
  return row.kind.words.startsWith("tables by");
}

function isArrayOfTables(row: RowInfo): boolean {
  return row.kind.words.startsWith("array");
}
