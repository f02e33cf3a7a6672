// Loads a config file: a Config, or all of its problems. Reads the file and those it names; never throws.
import { dirname, resolve } from "node:path";
import { safeParse } from "valibot";
import type { BaseIssue } from "valibot";
import { formatEndpoint } from "../core/address.ts";
import { check } from "./check.ts";
import type { Finding } from "./finding.ts";
import { conceal, expand } from "./env.ts";
import type { Environment } from "./env.ts";
import { contentOf, decode, disk, NamedFiles, readBytes, readOnce, reasonOf } from "./files.ts";
import type { Content, Disk } from "./files.ts";
import { noSuchOption, notSupportedYet, quote } from "./wording.ts";
import { placesOf } from "./locate.ts";
import { absoluteEndpoint, absolutePath } from "./paths.ts";
import { excerpt, formatPath, PROBLEMS_MAX, sortProblems } from "./problem.ts";
import type { KeyPath, Problem } from "./problem.ts";
import { file as fileSchema } from "./schema.ts";
import type { Config, FileConfig } from "./schema.ts";

import { readTls } from "./tls.ts";
import type { TlsMaterial } from "./tls.ts";
import { readToml } from "./toml.ts";
import { warnings } from "./warnings.ts";

/**
 * `files` are the absolute paths of the config and of every file it names: what a watcher watches. `omitted` counts the problems
 * or warnings above PROBLEMS_MAX.
 */
export type LoadResult =
  | {
      ok: true;
      config: Config;
      warnings: Problem[];
      omitted: number;
      files: string[];
      contents: FileContents;
      text: string;
    }
  | { ok: false; problems: Problem[]; omitted: number; files: string[]; contents: FileContents };

/** The content that was read. Without files that are too large to be read completely, and without a config that was given as a text. */
export type FileContents = ReadonlyMap<string, Content>;

export interface ParseOptions extends Partial<Disk> {
  /** The config file as the user named it: for messages, and for the folder that paths are relative to. */
  file: string;
  env: Environment;
  /** The time at which certificates must be valid, in milliseconds since 1970; default: now. */
  now?: number;
}

/** Maximum size of the config file. */
const configBytesMax = 16 * 1024 * 1024;
const tokenBytesMax = 64 * 1024;

/**
 * Reads and checks a config file, with every file that it names. `once` means that it will not be read again: then it may be a
 * pipe or a device, such as /dev/stdin.
 */
export function loadConfig(path: string, env: Environment, { once = false } = {}): LoadResult {
  const absolute = resolve(path);
  const contents = new Map<string, Content>();
  const refuse = (message: string, line = 1): LoadResult => {
    const problems = [{ file: path, line, column: 1, path: "", message }];
    return { ok: false, problems, omitted: 0, files: [absolute], contents };
  };
  let bytes: Uint8Array;
  try {
    bytes = (once ? readOnce : readBytes)(path, configBytesMax + 1);
  } catch (error) {
    contents.set(absolute, null);
    return refuse(`cannot be read: ${reasonOf(error)}`);
  }
  if (bytes.byteLength > configBytesMax) return refuse("is larger than 16 MiB, the maximum size of a config file");
  contents.set(absolute, contentOf(bytes));
  const text = decode(bytes);
  if (text === null) return refuse("expected UTF-8, found other bytes", lineOfBadBytes(bytes));
  const result = parseConfig(text, { file: path, env });
  return { ...result, contents: new Map([...result.contents, ...contents]) };
}

/** The same for a text; `readFile` and `modeOf` read the files that it names. */
export function parseConfig(text: string, options: ParseOptions): LoadResult {
  const { file } = options;
  const folder = dirname(resolve(file));
  const named = new NamedFiles(folder, [resolve(file)], { ...disk, ...options });
  try {
    return parseAll(text, options, folder, named);
  } catch (error) {
    // A bug in lb: it is reported as a problem too, because a reload must not end the process.
    const message = `could not be checked: ${error instanceof Error ? error.name : "unknown error"}`;
    return { ok: false, problems: [{ file, line: 1, column: 1, path: "", message }], omitted: 0, ...readBy(named) };
  }
}

function readBy({ paths, contents }: NamedFiles): { files: string[]; contents: FileContents } {
  return { files: paths, contents };
}

function parseAll(text: string, options: ParseOptions, folder: string, named: NamedFiles): LoadResult {
  const { file, env, now = Date.now() } = options;
  const document = readToml(text);
  if (document.is === "bad") {
    const { at, related, message } = document;
    const lines = excerpt(text, related === undefined ? [at] : [related, at]);
    return { ok: false, problems: [{ file, ...at, path: "", message, excerpt: lines }], omitted: 0, ...readBy(named) };
  }
  const { tree } = document;

  const { expansions, problems: unset } = expand(tree, env);
  const place = placer({ text, tree, file }, (message, path) => conceal(message, path, expansions));
  const result = safeParse(fileSchema, tree);
  const findings: Finding[] = [...unset, ...findingsOf(result.issues ?? [], unset)];
  const found = unset.length + (result.issues?.length ?? 0);
  // More problems are not useful, so options are not checked against each other yet.
  if (found > PROBLEMS_MAX) return { ok: false, ...place(findings, found), ...readBy(named) };

  const config = limitHealthTimeouts(result.output as FileConfig, tree, soundness(findings));
  const token = readToken("token_file", config, { ...soundness(findings), files: named });
  const readingToken = readToken("read_token_file", config, { ...soundness(findings), files: named });
  for (const { finding } of [token, readingToken]) if (finding !== null) findings.push(finding);
  if (token.value !== null && token.value === readingToken.value) findings.push(SAME_TOKEN);
  const tls = readTls({ config, ...soundness(findings), files: named, env, now });
  const isArray = (path: KeyPath) => Array.isArray(valueAt(tree, path));
  const subject = { config, ...soundness(findings), folder, isArray };
  findings.push(...tls.findings, ...check(subject), ...warnings(subject));

  const problems = findings.filter((finding) => finding.warning !== true);
  if (problems.length > 0) return { ok: false, ...place(problems), ...readBy(named) };
  const warned = place(findings);
  return {
    ok: true,
    config: finish(config, folder, { token: token.value, readToken: readingToken.value, tls }),
    warnings: warned.problems,
    omitted: warned.omitted,
    ...readBy(named),
    text,
  };
}

/** The default timeout of a health check is at most its interval, as in HAProxy. */
function limitHealthTimeouts(config: FileConfig, tree: unknown, { isSound, isWhole }: Soundness): FileConfig {
  if (!isWhole(["pools"])) return config;
  const pools = config.pools.map((pool) => {
    const path = ["pools", pool.name, "health"];
    if (!isSound(path) || valueAt(tree, [...path, "timeout"]) !== undefined) return pool;
    const { health } = pool;
    return { ...pool, health: { ...health, timeout: Math.min(health.timeout, health.interval) } };
  });
  return { ...config, pools };
}

/** The schema's issues, at most one more than are shown. */
function findingsOf(issues: readonly BaseIssue<unknown>[], unset: readonly Finding[]): Finding[] {
  const broken = new Set(unset.map(({ path }) => JSON.stringify(path)));
  const findings: Finding[] = [];
  for (const issue of issues.slice(0, PROBLEMS_MAX + 1)) {
    const path = (issue.path ?? []).map((item) => item.key as string | number);
    const [message = "", hint] = issue.message.split("\n");
    // If the variable is not set, other problems with the string mean nothing; those of its key remain.
    const isOfKey = message === noSuchOption || message === notSupportedYet;
    if (isOfKey || !broken.has(JSON.stringify(path)))
      findings.push({ path, message, ...(hint !== undefined && { hint }) });
  }
  return findings;
}

interface Document {
  text: string;
  tree: unknown;
  file: string;
}

/**
 * Turns findings into problems with line and column, in the order of the file, without duplicates. At most PROBLEMS_MAX; `total` is the
 * number of findings if these are not all.
 */
function placer({ text, tree, file }: Document, tell: (message: string, path: KeyPath) => string) {
  return (findings: readonly Finding[], total = findings.length): { problems: Problem[]; omitted: number } => {
    if (findings.length === 0) return { problems: [], omitted: 0 };
    const problems = new Map<string, Problem>();
    const shown = findings.slice(0, PROBLEMS_MAX);
    const places = placesOf(
      shown.map(({ path }) => path),
      text,
      tree,
    );
    for (const [index, { path, message, hint }] of shown.entries()) {
      const told = {
        path: formatPath(path),
        message: tell(message, path),
        ...(hint !== undefined && { hint: tell(hint, path) }),
      };
      problems.set(`${told.path}\n${told.message}`, { file, ...places[index]!, ...told });
    }
    return { problems: sortProblems([...problems.values()]), omitted: total - shown.length };
  };
}

/** As in check.ts. */
interface Soundness {
  isSound: (path: KeyPath) => boolean;
  isWhole: (path: KeyPath) => boolean;
}

/** The part of the config that can be checked, given the problems found so far. */
function soundness(findings: readonly Finding[]): Soundness {
  const exact = new Set<string>();
  const above = new Set<string>();
  for (const { path } of findings) {
    exact.add(JSON.stringify(path));
    for (let length = 0; length < path.length; length++) above.add(JSON.stringify(path.slice(0, length)));
  }
  const isWhole = (path: KeyPath) => {
    if (exact.size === 0) return true;
    for (let length = 0; length <= path.length; length++) {
      if (exact.has(JSON.stringify(path.slice(0, length)))) return false;
    }
    return true;
  };
  return { isWhole, isSound: (path) => isWhole(path) && !above.has(JSON.stringify(path)) };
}

const SAME_TOKEN: Finding = {
  path: ["admin", "read_token_file"],
  message: "contains the same token as token_file, so it would allow changes",
  hint: "write another token into it",
};

/** A bearer token of the admin endpoint. Neither the token nor the content of its file may appear in a message. */
function readToken(
  key: "token_file" | "read_token_file",
  config: FileConfig,
  { isSound, files }: Soundness & { files: NamedFiles },
): { value: string | null; finding: Finding | null } {
  const path = ["admin", key];
  if (!isSound(path) || !config.admin.enabled || config.admin[key] === "") return { value: null, finding: null };
  const name = config.admin[key];
  const refuse = (why: string) => ({ value: null, finding: { path, message: `the file ${quote(name)} ${why}` } });
  const read = files.read(name, tokenBytesMax);
  if (read.is === "bad") return refuse(read.why.startsWith("is larger") ? `${read.why}: it is not a token` : read.why);
  const token = decode(read.bytes)?.trim();
  if (token === undefined) return refuse("is not UTF-8, so it is not a token");
  if (token === "") return refuse("is empty: expected a token");
  // RFC 6750 section 2.1: the characters that an Authorization header can contain.
  if (!/^[\x21-\x7e]+$/.test(token))
    return refuse("is not a token: expected one line of printable ASCII without spaces");
  return { value: token, finding: null };
}

type AccessTarget = Config["log"]["access"];

/** The content of files. */
interface Contents {
  token: string | null;
  readToken: string | null;
  tls: TlsMaterial;
}

/** Fills in the values that depend on others: absolute paths, names, the content of files. */
function finish(config: FileConfig, folder: string, { token, readToken: read_token, tls }: Contents): Config {
  const { level, format } = config.log;
  return {
    ...config,
    admin: {
      ...config.admin,
      bind: absoluteEndpoint(folder, config.admin.bind),
      token,
      read_token,
      tls: tls.admin,
    },
    otel: config.otel && { ...config.otel, ca_pem: tls.otelCa },
    log: { level, format, access: accessTarget(config.log, folder, tls.syslogCa) },
    listeners: config.listeners.map((listener) => ({
      ...listener,
      bind: listener.bind.map((endpoint) => absoluteEndpoint(folder, endpoint)),
      rate_limit: listener.rate_limit && {
        rate: listener.rate_limit.rate,
        burst: listener.rate_limit.burst ?? Math.max(1, Math.ceil(listener.rate_limit.rate)),
      },
      tls: listener.tls && made(tls.listeners, listener.name),
    })),
    pools: config.pools.map((pool) => ({
      ...pool,
      backends: pool.backends.map(({ address, name, ...rest }) => ({
        endpoint: absoluteEndpoint(folder, address),
        name: name ?? formatEndpoint(address),
        ...rest,
      })),
      tls: pool.tls && made(tls.pools, pool.name),
    })),
  };
}

function accessTarget({ access, syslog }: FileConfig["log"], folder: string, ca_pem: string | null): AccessTarget {
  if (access === "stdout" || access === "stderr" || access === "off") return access;
  if (access !== "syslog") return { file: absolutePath(folder, access) };
  const { transport } = syslog;
  const endpoint = absoluteEndpoint(folder, syslog.endpoint);
  const address = transport === "unix" ? formatEndpoint(endpoint) : `${transport}://${formatEndpoint(endpoint)}`;
  return { syslog: { address, transport, endpoint, ca_pem } };
}

/** Asserts that TLS material exists, as it must in a config without problems: configured TLS is never left off. */
function made<T>(all: Map<string, T>, name: string): T {
  const one = all.get(name);
  if (one === undefined) throw new Error(`no TLS material for ${name}`);
  return one;
}

function lineOfBadBytes(bytes: Uint8Array): number {
  let line = 1;
  for (let start = 0; start < bytes.byteLength; line++) {
    const end = bytes.indexOf(0x0a, start);
    const stop = end < 0 ? bytes.byteLength : end + 1;
    if (decode(bytes.subarray(start, stop)) === null) return line;
    start = stop;
  }
  return line;
}

function valueAt(tree: unknown, path: KeyPath): unknown {
  let value = tree;
  for (const part of path)
    value = typeof value === "object" && value !== null ? (value as Record<string, unknown>)[part] : undefined;
  return value;
}
