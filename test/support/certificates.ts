// Certificates that a test defines, made by the openssl program during the test: an authority, leaves with names, keys of either type,
// expired ones, and the authority's revocation list.
import { execFile, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

/** Why TLS cannot be tested here, or null. Tests that need the programs skip with it. */
export const peersMissing: string | null =
  ["openssl", "python3", "curl"]
    .filter((program) => spawnSync(program, [program === "openssl" ? "version" : "--version"]).status !== 0)
    .map((program) => `no ${program} here`)[0] ?? null;

type KeyType = "ec" | "rsa" | "rsa1024";

export interface AuthorityOptions {
  /** The authority that signs it; by default it signs itself. */
  by?: Authority;
  key?: KeyType;
  digest?: string;
}

export interface LeafOptions {
  /** "DNS:a.example", "IP:127.0.0.1" and so on. */
  names?: string[];
  key?: KeyType;
  /** The digest of the authority's signature. */
  digest?: string;
  /** Its only allowed use, in OpenSSL's term: "serverAuth", "clientAuth". */
  usage?: string;
  /** YYYYMMDDHHMMSSZ. */
  from?: string;
  until?: string;
}

/** A certificate and its key, as the files that a config names. */
export interface Leaf {
  cert: string;
  key: string;
  /** SHA-256 of the certificate, lower case, without colons. */
  fingerprint: string;
}

/** The option of a listener's TLS with these files. */
export function certificates(...leaves: Leaf[]): string {
  return `certificates = [${leaves.map(({ cert, key }) => `{ cert = "${cert}", key = "${key}" }`).join(", ")}]`;
}

const FROM = "20200101000000Z";
const UNTIL = "21200101000000Z";

/** An authority in a folder of its own, which is removed by `using`. */
export class Authority {
  readonly dir = mkdtempSync(join(tmpdir(), "lb-ca-"));
  /** The authority's certificate. */
  readonly cert = join(this.dir, "ca.pem");
  readonly #key = join(this.dir, "ca.key");
  readonly #config = join(this.dir, "ca.cnf");
  #made = 0;
  /** `openssl ca` keeps a file of what it signed, so calls run one after the other. */
  #signing: Promise<unknown> = Promise.resolve();

  static async make(name = "Test CA", options: AuthorityOptions = {}): Promise<Authority> {
    const authority = new Authority();
    await authority.#make(name, options);
    return authority;
  }

  async #make(name: string, { by, key = "ec", digest = "sha256" }: AuthorityOptions): Promise<void> {
    writeFileSync(join(this.dir, "index.txt"), "");
    writeFileSync(
      this.#config,
      [
        "[ca]\ndefault_ca = any\n[any]",
        `database = ${this.dir}/index.txt\nnew_certs_dir = ${this.dir}`,
        "rand_serial = yes\ndefault_md = sha256\npolicy = policy\ncopy_extensions = copy\nunique_subject = no",
        "default_crl_days = 3650\n[policy]\ncommonName = optional\n",
      ].join("\n"),
    );
    await this.#makeKey(this.#key, key);
    const subject = ["-subj", `/CN=${name}`, "-addext", "keyUsage=critical,keyCertSign,cRLSign"];
    const request = ["req", "-new", "-key", this.#key, ...subject];
    if (by === undefined) {
      await this.#openssl(...request, "-x509", "-days", "3650", `-${digest}`, "-out", this.cert);
      return;
    }
    const csr = join(this.dir, "ca.csr");
    await this.#openssl(...request, "-addext", "basicConstraints=critical,CA:TRUE", "-out", csr);
    await by.#signs("-batch", "-notext", "-md", digest, "-days", "3650", "-in", csr, "-out", this.cert);
  }

  /** A certificate signed by the authority; `name` is its common name and, by default, its only DNS name. */
  async leaf(name: string, options: LeafOptions = {}): Promise<Leaf> {
    const { names = [`DNS:${name}`], key = "ec", digest = "sha256", usage, from = FROM, until = UNTIL } = options;
    const path = join(this.dir, `${++this.#made}`);
    const files = { cert: `${path}.pem`, key: `${path}.key` };
    await this.#makeKey(files.key, key);
    const extensions = names.length === 0 ? [] : ["-addext", `subjectAltName=${names.join(",")}`];
    if (usage !== undefined) extensions.push("-addext", `extendedKeyUsage=${usage}`);
    await this.#openssl(
      "req",
      "-new",
      "-utf8",
      "-key",
      files.key,
      "-subj",
      `/CN=${name}`,
      ...extensions,
      "-out",
      `${path}.csr`,
    );
    const dates = ["-md", digest, "-startdate", from, "-enddate", until];
    await this.#signs("-batch", "-notext", ...dates, "-in", `${path}.csr`, "-out", files.cert);
    return { ...files, fingerprint: fingerprint(files.cert) };
  }

  /** A self-signed certificate. */
  async selfSigned(name: string): Promise<Leaf> {
    const path = join(this.dir, `${++this.#made}`);
    const files = { cert: `${path}.pem`, key: `${path}.key` };
    await this.#makeKey(files.key, "ec");
    const names = ["-subj", `/CN=${name}`, "-addext", `subjectAltName=DNS:${name}`, "-days", "3650"];
    await this.#openssl("req", "-x509", "-new", "-key", files.key, "-out", files.cert, ...names);
    return { ...files, fingerprint: fingerprint(files.cert) };
  }

  /** The list of revoked certificates: these and all revoked before. Returns the file. */
  async revoke(...leaves: Leaf[]): Promise<string> {
    for (const { cert } of leaves) await this.#signs("-revoke", cert);
    const list = join(this.dir, `${++this.#made}.crl`);
    await this.#signs("-gencrl", "-out", list);
    return list;
  }

  // Keys come from ready parameters, which takes no time; RSA is the exception.
  #makeKey(file: string, type: KeyType): Promise<void> {
    const bits = type === "rsa1024" ? 1024 : 2048;
    const kind =
      type === "ec" ? ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"] : ["RSA", "-pkeyopt", `rsa_keygen_bits:${bits}`];
    return this.#openssl("genpkey", "-quiet", "-algorithm", ...kind, "-out", file);
  }

  async #openssl(...args: string[]): Promise<void> {
    await run("openssl", args);
  }

  #signs(...args: string[]): Promise<void> {
    const before = this.#signing;
    const all = ["ca", "-config", this.#config, "-cert", this.cert, "-keyfile", this.#key, ...args];
    const signed = before.then(() => this.#openssl(...all));
    this.#signing = signed.catch(() => undefined);
    return signed;
  }

  [Symbol.dispose](): void {
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** SHA-256 of the first certificate in a file. */
function fingerprint(file: string): string {
  const [, base64 = ""] = /-----BEGIN CERTIFICATE-----([^-]*)-----END/.exec(readFileSync(file, "latin1")) ?? [];
  return new Bun.CryptoHasher("sha256").update(Buffer.from(base64, "base64")).digest("hex");
}
