// The kinds of single values: texts, numbers, quantities, addresses. Each is a valibot schema with the words that name it in
// the reference; every problem says what was expected and what was found.
import * as v from "valibot";
import { parseAddress, parseCidr, parseEndpoint } from "../core/address.ts";
import type { Address, Cidr, Endpoint } from "../core/address.ts";
import { parseStatusRanges } from "../core/http-status.ts";
import { compilePattern } from "../core/pattern.ts";
import { dnsName } from "./names.ts";
import type { DnsName } from "./names.ts";
import { closest } from "./suggest.ts";
import { formatDuration, parseBandwidth, parseDuration, parseRate, parseSize, patterns } from "./units.ts";
import type { Quantity } from "./units.ts";
import {
  expected,
  expectedFound,
  notSupportedYet,
  problem,
  quote,
  replaceRun,
  withArticle,
  withMeant,
  withWords,
} from "./wording.ts";
import type { Dataset, Kind, Message, Run } from "./wording.ts";

/** Any text; with `least` 1 any text except the empty one. */
export function text(words: string, least = 0): Kind<string, string> {
  const example = textExamples[words];
  const message: Message = (issue) => expectedFound(withArticle(words), issue.input, example);
  const schema = least > 0 ? v.pipe(v.string(message), v.minLength(least, message)) : v.string(message);
  return withWords(schema, words, example);
}

const textExamples: Readonly<Record<string, string>> = {
  file: '"certs/site.pem"',
  "pool's name": '"app"',
  URL: '"http://127.0.0.1:4318"',
};

export function flag(): Kind<boolean, boolean> {
  return withWords(v.boolean(expected("true or false")), "boolean");
}

/** A whole number, both ends included. */
export function whole(least: number, most: number): Kind<number, number> {
  const message = expected(`a whole number from ${least} to ${most}`);
  const schema = v.pipe(v.number(message), v.integer(message), v.minValue(least, message), v.maxValue(most, message));
  return withWords(schema, `whole number, ${least} to ${most}`);
}

/** One of a few words; those in `reserved` are refused until their feature exists. */
export function choice<const Now extends string>(
  now: readonly Now[],
  reserved: readonly string[] = [],
): Kind<Now, Now> {
  const all = [...now, ...reserved];
  const quoted = now.map((word) => JSON.stringify(word)).join(", ");
  const wanted = now.length > 1 ? `one of ${quoted}` : quoted;
  const schema = v.picklist(all, expected(wanted));
  const run: Run = (dataset, config) => {
    const { value } = dataset;
    if (typeof value === "string") {
      if (reserved.includes(value)) return problem(dataset, config, `${JSON.stringify(value)} is ${notSupportedYet}`);
      const meant = all.includes(value) || now.length === 1 ? null : closest(value, all);
      if (meant !== null) return problem(dataset, config, withMeant(expectedFound(wanted, value), meant));
    }
    return schema["~run"](dataset, config);
  };
  const words = all.map((word) => (reserved.includes(word) ? `"${word}" (not supported yet)` : `"${word}"`)).join(", ");
  return withWords(replaceRun(schema, run), words, JSON.stringify(now[0])) as unknown as Kind<Now, Now>;
}

/** A duration in milliseconds within [least, most]. `zero` is the meaning of "0s"; without it "0s" is refused. */
export function duration(limits: { least?: number; most?: number; zero?: string } = {}): Kind<string, number> {
  const least = limits.least ?? 1;
  const most = limits.most ?? longestDuration;
  const schema = quantity('a duration such as "250ms"', patterns.duration, parseDuration, (ms) => {
    if (ms === 0 && limits.zero !== undefined) return null;
    if (ms === 0) return `it must be more than 0, at least ${formatDuration(least)}`;
    if (ms < least) return `the shortest is ${formatDuration(least)}`;
    return ms > most ? `the longest is ${formatDuration(most)}` : null;
  });
  return withWords(schema, limits.zero === undefined ? "duration" : `duration; "0s" = ${limits.zero}`);
}

/** The maximum of a 32-bit timer, in whole days. */
const longestDuration = 24 * 86_400_000;

/** A size in bytes, from 4 KiB to 1 GiB. */
export function size(): Kind<string, number> {
  const schema = quantity('a size such as "64KiB"', patterns.size, parseSize, (bytes) => {
    if (bytes < SIZE_MIN) return "the smallest is 4KiB";
    return bytes > SIZE_MAX ? "the largest is 1GiB" : null;
  });
  return withWords(schema, "size");
}

const SIZE_MIN = 4096;
const SIZE_MAX = 2 ** 30;

/** A bandwidth in bytes per second. */
export function bandwidth(): Kind<string, number> {
  const schema = quantity('a bandwidth such as "10MB/s"', patterns.bandwidth, parseBandwidth, (bytes) =>
    bytes < 1 ? "it must be at least 1B/s; leave it out for no limit" : null,
  );
  return withWords(schema, "bandwidth", '"10MB/s"');
}

/** A rate in connections per second, at most a million. */
export function rate(): Kind<string, number> {
  const schema = quantity('a rate such as "100/s"', patterns.rate, parseRate, (perSecond) => {
    if (perSecond <= 0) return "it must be more than 0; leave rate_limit out for no limit";
    return perSecond > 1e6 ? "the highest is 1000000/s" : null;
  });
  return withWords(schema, "rate", '"100/s"');
}

/** An address to listen on: a host name or port 0 is refused. */
export function bindAddress(): Kind<string, BindEndpoint> {
  const wanted = 'an address to listen on such as "0.0.0.0:8080", ":8080" or "unix:/run/lb.sock"';
  const kind = endpoint(wanted, "address to listen on", (found, given) => {
    if (found.kind !== "name") return null;
    const numbers = found.host === "localhost" ? `127.0.0.1:${found.port}` : `:${found.port}`;
    return withMeant(`${JSON.stringify(given)} has a host name, and only an IP address can be listened on`, numbers);
  }) as Kind<string, BindEndpoint>;
  const run: Run = (dataset, config) => {
    const isRange = typeof dataset.value === "string" && /^[^/@]*:\d+-\d+$/.test(dataset.value);
    return isRange ? problem(dataset, config, `a range of ports is ${notSupportedYet}`) : kind["~run"](dataset, config);
  };
  return replaceRun(kind, run);
}

/** An address to connect to: it must have a host, and a port other than 0. */
export function dialAddress(): Kind<string, DialEndpoint> {
  const wanted = 'an address to connect to such as "10.0.0.11:80", "name.example:80" or "unix:/run/app.sock"';
  const kind = endpoint(wanted, "address to connect to", (found, given) => {
    if (found.kind !== "any") return null;
    return withMeant(`${JSON.stringify(given)} names no host`, `127.0.0.1:${found.port}`);
  }) as Kind<string, DialEndpoint>;
  return Object.assign(kind, { example: '"10.0.0.11:80"' });
}

/** The base URL of a receiver of OTLP over HTTP, without a slash at the end. */
export function otlpEndpoint(): Kind<string, string> {
  const wanted = 'a URL such as "http://127.0.0.1:4318" or "https://otel.example"';
  const schema = v.pipe(
    v.string(expected(wanted)),
    v.rawTransform(({ dataset, addIssue, NEVER }) => {
      const given = dataset.value;
      const url = URL.canParse(given) ? new URL(given) : null;
      if (url === null || !/^https?:$/.test(url.protocol)) addIssue({ message: expectedFound(wanted, given) });
      else if (url.username !== "" || url.password !== "")
        addIssue({ message: "expected a URL without a user: write headers.Authorization for that" });
      else if (url.search !== "" || url.hash !== "")
        addIssue({ message: `expected a URL without "?" and "#", because paths such as /v1/metrics are added to it` });
      else if (/\/v1\/(metrics|logs|traces)\/?$/.test(url.pathname))
        addIssue({
          message: withMeant(
            `${expectedFound(wanted, given)}: the path of the signal is added`,
            given.replace(/\/v1\/\w+\/?$/, ""),
          ),
        });
      else return url.href.replace(/\/+$/, "");
      return NEVER;
    }),
  );
  return withWords(schema, "base URL", '"http://127.0.0.1:4318"');
}

/** Headers that the sender of a request makes itself. */
const OWN_HEADERS = ["host", "content-type", "content-length", "content-encoding", "transfer-encoding", "connection"];

/** Headers of HTTP requests. Their values may be secret, so no message shows one. */
export function headers(): Kind<Record<string, string>, Record<string, string>> {
  const example = '{ Authorization = "Bearer ${OTEL_TOKEN}" }';
  const run: Run = (dataset, config) => {
    const input = dataset.value;
    if (typeof input !== "object" || input === null || Array.isArray(input))
      return problem(dataset, config, expectedFound("a table", input, example));
    const result: Dataset = { typed: true, value: input };
    for (const [name, value] of Object.entries(input)) {
      if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name)) problem(result, config, "is not the name of a header", name);
      else if (OWN_HEADERS.includes(name.toLowerCase())) problem(result, config, "is set by lb itself", name);
      else if (typeof value !== "string") problem(result, config, "expected a text", name);
      else if (!/^[\x20-\x7e\t]*$/.test(value))
        problem(result, config, "expected printable ASCII; the value has other characters", name);
    }
    return result;
  };
  return withWords(replaceRun(v.record(v.string(), v.string()), run), "table of texts", example);
}

/** Where a syslog receiver listens. */
export function syslogAddress(): Kind<string, SyslogAddress> {
  const wanted = 'a syslog receiver such as "unix:/dev/log", "udp://host:514", "tcp://host:601" or "tls://host:6514"';
  const schema = v.pipe(
    v.string(expected(wanted)),
    v.rawTransform(({ dataset, addIssue, NEVER }) => {
      const given = dataset.value;
      const [, scheme, rest = ""] = /^(udp|tcp|tls):\/\/(.*)$/.exec(given) ?? [];
      const endpoint =
        scheme === undefined && !given.startsWith("unix:") ? null : parseEndpoint(scheme === undefined ? given : rest);
      const isUnix = endpoint?.kind === "unix" || endpoint?.kind === "abstract";
      if (endpoint?.kind === "bad") addIssue({ message: `${expectedFound(wanted, given)}: ${endpoint.why}` });
      else if (endpoint === null || isUnix !== (scheme === undefined))
        addIssue({ message: expectedFound(wanted, given) });
      else if (endpoint.kind === "any") addIssue({ message: `${quote(given)} names no host` });
      else if ("port" in endpoint && endpoint.port === 0)
        addIssue({ message: `${quote(given)} has port 0; ports are 1 to 65535` });
      else return { transport: (scheme ?? "unix") as SyslogAddress["transport"], endpoint };
      return NEVER;
    }),
  );
  return withWords(schema, "syslog receiver", '"udp://10.0.0.9:514"');
}

export interface SyslogAddress {
  transport: "unix" | "udp" | "tcp" | "tls";
  /** A unix socket with "unix", and only there. */
  endpoint: DialEndpoint;
}

export type BindEndpoint = Exclude<Endpoint, { kind: "name" }>;
export type DialEndpoint = Exclude<Endpoint, { kind: "any" }>;

/** A range of addresses: "10.0.0.0/8", or one address. */
export function cidr(): Kind<string, Cidr> {
  const wanted = 'a CIDR such as "10.0.0.0/8", or an address';
  const schema = v.pipe(
    v.string(expected(wanted)),
    v.rawTransform(({ dataset, addIssue, NEVER }) => {
      const parsed = parseCidr(dataset.value);
      if (!("bad" in parsed)) return parsed;
      const [why, meant] = parsed.bad.split(/: did you mean (.*)\?$/);
      addIssue({ message: withMeant(`${expectedFound(wanted, dataset.value)}: ${why}`, meant) });
      return NEVER;
    }),
  );
  return withWords(schema, "CIDR", '"10.0.0.0/8"');
}
export const nameForm = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/;
export const nameWords =
  "letters, digits, _, - and ., which starts with a letter or digit and has 64 characters at most";

/** The name of a backend in logs and metrics. */
export function nameText(): Kind<string, string> {
  const message = expected(`a name of ${nameWords}`);
  return withWords(v.pipe(v.string(message), v.regex(nameForm, message)), "name");
}

/** The pattern for a client's server name in a route: "www.example.com", or "*.example.com" for any one label there. */
export function sniPattern(): Kind<string, string> {
  const wanted = 'a name such as "www.example.com" or "*.example.com"';
  const kind = dnsText(wanted, "DNS name or wildcard", true, (given) =>
    given === "*" ? 'leave sni out to take every name, or write "*.example.com"' : null,
  );
  return Object.assign(kind, { example: '"www.example.com"' });
}

/** The name of a TLS server, or "". */
export function serverName(): Kind<string, string> {
  return dnsText('a DNS name such as "db.example.com", or ""', "DNS name", false, (given) =>
    given === "" ? "" : null,
  );
}

/** The name of an ALPN protocol: 1 to 255 bytes (RFC 7301 section 3.1). All registered names that a client offers are ASCII. */
export function protocolName(): Kind<string, string> {
  const message = expected('a protocol such as "h2" or "http/1.1", of 1 to 255 ASCII characters');
  return withWords(v.pipe(v.string(message), v.regex(/^[\x21-\x7e]{1,255}$/, message)), "protocol", '"h2"');
}

/** HTTP status codes: "200-399", "200,204". */
export function statusCodes(): Kind<string, string> {
  const message = expected('HTTP status codes such as "200-399" or "200,204"');
  const isStatus = (given: string) => parseStatusRanges(given) !== null;
  return withWords(v.pipe(v.string(message), v.check(isStatus, message)), "status codes");
}

/** The target of an HTTP request, which is sent as it is given. */
export function httpPath(): Kind<string, string> {
  const message = expected('a path such as "/health", in ASCII without spaces');
  return withWords(v.pipe(v.string(message), v.regex(/^\/[\x21-\x7e]*$/, message)), "path");
}

/** The value of an HTTP Host field, or "". */
export function httpHost(): Kind<string, string> {
  const message = expected('a host such as "www.example.com" or "www.example.com:8080", or ""');
  return withWords(v.pipe(v.string(message), v.regex(/^[A-Za-z0-9._:[\]-]*$/, message)), "host");
}

/** Text without NUL bytes: in protocols a NUL ends a name. */
export function userName(): Kind<string, string> {
  const message = expected('a user\'s name of at most 128 characters, or ""');
  return withWords(v.pipe(v.string(message), v.regex(/^[^\0]{0,128}$/, message)), "user's name");
}

/** Bytes: two hexadecimal digits each, with spaces between them or none. */
export function hex(): Kind<string, string> {
  const message = expected('bytes in hexadecimal such as "0a1b" or "0a 1b"');
  return withWords(v.pipe(v.string(message), v.regex(/^(?:[0-9a-fA-F]{2} *)*$/, message)), "hexadecimal");
}

/** A regular expression for the answer of a backend. */
export function regularExpression(): Kind<string, string> {
  const wanted = 'a regular expression such as "role:(master|primary)"';
  const schema = v.pipe(
    v.string(expected(wanted)),
    v.rawCheck(({ dataset, addIssue }) => {
      if (!dataset.typed) return;
      const pattern = compilePattern(dataset.value);
      if ("bad" in pattern) addIssue({ message: `${expectedFound(wanted, dataset.value)}: ${pattern.bad}` });
    }),
  );
  return withWords(schema, "regular expression");
}

/** An IP address without a port. */
export function ipAddress(): Kind<string, Address> {
  const wanted = 'an IP address such as "10.0.0.5", without a port';
  const schema = v.pipe(
    v.string(expected(wanted)),
    v.rawTransform(({ dataset, addIssue, NEVER }) => {
      const parsed = parseAddress(dataset.value);
      if (parsed !== null) return parsed;
      addIssue({ message: expectedFound(wanted, dataset.value) });
      return NEVER;
    }),
  );
  return withWords(schema, "IP address", '"10.0.0.5"');
}

/** An IP address without a port, or "". */
/** A local address for connects: an IP address, "" for the kernel's choice, or the client's address, with its port or without. */
export function sourceAddress(): Kind<string, string> {
  const message = expected('an IP address such as "10.0.0.5", "client", "client_with_port", or ""');
  const isSource = (given: string) => SOURCE_WORDS.includes(given) || parseAddress(given) !== null;
  return withWords(v.pipe(v.string(message), v.check(isSource, message)), 'IP address, "client" or "client_with_port"');
}

const SOURCE_WORDS = ["", "client", "client_with_port"];

function quantity(
  words: string,
  pattern: RegExp,
  parse: (text: string) => Quantity,
  limit: (value: number) => string | null,
): v.GenericSchema<string, number> {
  const why = (given: string): string | null => {
    const parsed = parse(given);
    const reason = parsed.is === "bad" ? parsed.why : limit(parsed.value);
    if (reason === null) return null;
    return withMeant(`${expectedFound(words, given)}: ${reason}`, parsed.is === "bad" ? parsed.meant : undefined);
  };
  return v.pipe(
    v.string(expected(words)),
    v.regex(pattern, (issue) => why(issue.input) ?? expectedFound(words, issue.input)),
    v.rawTransform(({ dataset, addIssue, NEVER }) => {
      const reason = why(dataset.value);
      const parsed = parse(dataset.value);
      if (reason === null && parsed.is === "number") return parsed.value;
      addIssue({ message: reason ?? expectedFound(words, dataset.value) });
      return NEVER;
    }),
  );
}

/** A DNS name in lower case. `special` returns "" for a text that is accepted as it is, or why the text is refused. */
function dnsText(
  wanted: string,
  words: string,
  wildcard: boolean,
  special: (given: string) => string | null,
): Kind<string, string> {
  const schema = v.pipe(
    v.string(expected(wanted)),
    v.rawTransform(({ dataset, addIssue, NEVER }) => {
      const given = dataset.value;
      const answer = special(given);
      if (answer === "") return given;
      const parsed: DnsName = answer === null ? dnsName(given, { wildcard }) : { is: "bad", why: answer };
      if (parsed.is === "name") return parsed.name;
      addIssue({ message: withMeant(`${expectedFound(wanted, given)}: ${parsed.why}`, parsed.meant) });
      return NEVER;
    }),
  );
  return withWords(schema, words);
}

function endpoint(
  wanted: string,
  words: string,
  refuse: (found: Endpoint, given: string) => string | null,
): Kind<string, Endpoint> {
  const schema = v.pipe(
    v.string(expected(wanted)),
    v.rawTransform(({ dataset, addIssue, NEVER }) => {
      const given = dataset.value;
      const parsed = parseEndpoint(given);
      if (parsed.kind === "bad") {
        addIssue({ message: `${expectedFound(wanted, given)}: ${parsed.why}` });
        return NEVER;
      }
      const reason =
        "port" in parsed && parsed.port === 0
          ? `${quote(given)} has port 0; ports are 1 to 65535`
          : refuse(parsed, given);
      if (reason === null) return parsed;
      addIssue({ message: reason });
      return NEVER;
    }),
  );
  return withWords(schema, words);
}
