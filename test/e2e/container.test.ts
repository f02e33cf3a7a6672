// The image of packaging/Containerfile, built by buildah and run by podman as a user would: unprivileged, read-only, with its config in a
// mounted folder. The first stage needs a registry, so its steps run here, by the Containerfile's own list of files, and the result
// replaces it (`--build-context build=`).
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, cp, mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { createConnection, createServer, type AddressInfo, type Server } from "node:net";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";

const repository = join(import.meta.dirname, "../..");
const containerfile = join(repository, "packaging/Containerfile");
const rootfs = join(repository, "packaging/rootfs.sh");

let folder: string;
/** Why containers cannot run on this machine, or null if they can. */
let trouble: string | null = null;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "lb-container-"));
  trouble = await containerTrouble();
});

afterAll(async () => {
  if (trouble === null) await podman("rmi", "--all", "--force");
  await rm(folder, { recursive: true, force: true });
});

describe("the image", () => {
  let stdout = "";
  let stderr = "";
  let exited: Promise<number | null>;
  let backends: Server[] = [];
  let ports: { web: number; admin: number };

  beforeAll(async () => {
    if (trouble !== null) return;
    const stage = await buildStage("first");
    await buildImage("lb", stage);

    backends = await Promise.all([greeter("one"), greeter("two")]);
    ports = { web: await freePort(), admin: await freePort() };
    await mkdir(join(folder, "conf"));
    await writeConfig(`127.0.0.1:${portOf(backends[0]!)}`);
    const confinement = [
      "--read-only",
      "--read-only-tmpfs=false",
      "--cap-drop=all",
      "--security-opt=no-new-privileges",
    ];
    const surroundings = ["--network=host", "--add-host", "backend.test:127.0.0.1", ...limits];
    const config = ["--volume", `${join(folder, "conf")}:/etc/lb:ro`];
    const options = ["--name", "lb", ...confinement, ...surroundings, ...config];
    const container = spawn("podman", [...engine(), "run", ...options, "lb"], { stdio: ["ignore", "pipe", "pipe"] });
    container.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
    container.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    exited = once(container, "exit").then(([code]) => code as number | null);
    await eventually(async () => expect(await greeting(), stderr).toBe("one"));
  });

  beforeEach((context) => {
    if (trouble !== null) context.skip(trouble);
  });

  afterAll(async () => {
    if (trouble !== null) return;
    await podman("rm", "--force", "--time", "0", "lb");
    await exited;
    for (const backend of backends) backend.close();
  });

  test("is small, unprivileged and has a health check of its own", async () => {
    const { output } = await podman("image", "inspect", "lb");
    const [image] = JSON.parse(output) as [{ Size: number; User: string; Healthcheck: { Test: string[] } }];
    expect(image.Size).toBeLessThan(120e6);
    expect(image.User).toBe("65532:65532");
    expect(image.Healthcheck.Test).toEqual(["CMD", "/lb", "health", "/etc/lb/lb.toml"]);
  });

  test("relays traffic and logs it to standard output", async () => {
    expect(await greeting()).toBe("one");
    await eventually(() => {
      const lines = stdout.split("\n").filter((line) => line.startsWith("{"));
      const ends = lines.map((line) => JSON.parse(line) as { listener?: string; end?: string });
      expect(ends).toContainEqual(expect.objectContaining({ listener: "web", end: "eof" }));
    });
  });

  test("reports itself healthy", async () => {
    const { code, output } = await podman("healthcheck", "run", "lb");
    expect({ code, output }).toEqual({ code: 0, output: "" });
  });

  test("reloads when a file in the mounted folder is replaced", async () => {
    await writeConfig(`127.0.0.1:${portOf(backends[1]!)}`);
    await eventually(async () => expect(await greeting()).toBe("two"));
  });

  test("resolves the name of a backend", async () => {
    await writeConfig(`backend.test:${portOf(backends[0]!)}`);
    await eventually(async () => expect(await greeting()).toBe("one"));
  });

  test("contains CA certificates for pools with TLS and no bundle of their own", async () => {
    const file = join(folder, "conf/tls.toml");
    await writeFile(file, '[listeners.a]\nbind = ":1"\npool = "p"\n[pools.p]\nbackends = ["db.example:1"]\ntls = {}\n');
    await chmod(file, 0o644);
    const checked = (...options: string[]) =>
      podman(
        "run",
        "--rm",
        ...limits,
        "--network=host",
        "--volume",
        `${join(folder, "conf")}:/etc/lb:ro`,
        ...options,
        "lb",
        "check",
        "/etc/lb/tls.toml",
      );
    expect(await checked()).toMatchObject({ code: 0 });
    // The control: the same image without them.
    const { code, errors } = await checked("--tmpfs=/etc/ssl:notmpcopyup");
    expect(code).toBe(2);
    expect(errors).toContain("this system has none");
    expect(errors).toContain("ca-certificates");
  });

  test("ends with exit code 0 on SIGTERM", async () => {
    await podman("kill", "--signal", "TERM", "lb");
    expect(await exited, stderr).toBe(0);
  });

  /** The first bytes of the backend behind the listener, "" if nothing answers. */
  async function greeting(): Promise<string> {
    const socket = createConnection({ host: "127.0.0.1", port: ports.web });
    let text = "";
    socket.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
    socket.on("error", () => {});
    socket.setTimeout(2_000, () => socket.destroy());
    await new Promise<void>((resolve) => socket.once("close", () => resolve()));
    return text;
  }

  async function writeConfig(backend: string): Promise<void> {
    const text = [
      `[admin]\nbind = "127.0.0.1:${ports.admin}"`,
      `[log]\nformat = "json"`,
      `[listeners.web]\nbind = "127.0.0.1:${ports.web}"\npool = "app"`,
      `[pools.app]\nbackends = ["${backend}"]`,
    ].join("\n");
    const file = join(folder, "conf/lb.toml");
    await writeFile(`${file}.new`, `${text}\n`);
    await rename(`${file}.new`, file);
    await chmod(join(folder, "conf"), 0o755);
  }

  function eventually(check: () => void | Promise<void>): Promise<void> {
    return vi.waitFor(
      async () => {
        await check();
      },
      { timeout: 15_000, interval: 100 },
    );
  }
});

test("the image's first stage is reproducible", async () => {
  const digests = await Promise.all(
    ["second", "a-third-with-a-longer-name"].map(async (name) => {
      const stage = await buildStage(name);
      return Bun.SHA256.hash(await readFile(join(stage, "rootfs/lb")), "hex");
    }),
  );
  expect(digests[0]).toBe(digests[1]);
});

/**
 * Runs the first stage in a folder of its own, and returns that folder. It takes the files that the Containerfile copies, so a file that is
 * missing there is missing here; `npm ci` is a copy of the installed packages.
 */
async function buildStage(name: string): Promise<string> {
  const work = join(folder, name);
  const [stage] = (await readFile(containerfile, "utf8")).split(/^FROM scratch$/m);
  for (const [, list] of stage!.matchAll(/^COPY (.+)$/gm)) {
    const files = list!.split(" ");
    const to = files.pop()!;
    for (const file of files) {
      const target = to.endsWith("/") ? join(work, to, basename(file)) : join(work, to);
      await cp(join(repository, file), target, { recursive: true });
    }
  }
  const lock = JSON.parse(await readFile(join(work, "package-lock.json"), "utf8")) as {
    packages: Record<string, { dev?: boolean }>;
  };
  for (const [path, { dev }] of Object.entries(lock.packages)) {
    if (path !== "" && dev !== true) await cp(join(repository, path), join(work, path), { recursive: true });
  }
  await succeed(process.execPath, [join(work, "scripts/build.ts")]);
  await succeed(join(work, "packaging/rootfs.sh"), [join(work, "dist/lb"), join(work, "rootfs")]);
  return work;
}

async function buildImage(name: string, stage: string): Promise<void> {
  // chroot needs only root; `--format docker` because OCI has no HEALTHCHECK.
  const options = ["--isolation", "chroot", "--format", "docker", "--build-context", `build=${stage}`, "--tag", name];
  await succeed("buildah", [...storage(), "bud", ...options, "--file", containerfile, repository]);
}

/** Builds and runs an image around /bin/true: if that does not work, no image would. */
async function containerTrouble(): Promise<string | null> {
  for (const program of ["buildah", "podman", "runc"]) {
    if (Bun.which(program) === null) return `${program} is not installed`;
  }
  try {
    const probe = join(folder, "probe");
    await succeed(rootfs, ["/bin/true", join(probe, "rootfs")]);
    await buildImage("probe", probe);
    await succeed("podman", [...engine(), "run", "--rm", "--network=host", ...limits, "probe"]);
    return null;
  } catch (error) {
    return `no container runs here: ${error instanceof Error ? error.message : String(error)}`;
  }
}

/** Below the hard limits of any machine; podman's own defaults are above them if it may not raise them. */
const limits = ["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=512:512"];

/** Images and containers are in the test's own folder, with the only driver that needs nothing from the kernel. */
function storage(): string[] {
  return ["--root", join(folder, "storage"), "--runroot", join(folder, "run"), "--storage-driver", "vfs"];
}

function engine(): string[] {
  return [...storage(), "--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "file"];
}

function podman(...args: string[]): Promise<{ code: number | null; output: string; errors: string }> {
  return run("podman", [...engine(), ...args]);
}

async function succeed(program: string, args: string[]): Promise<void> {
  const { code, errors } = await run(program, args);
  if (code !== 0) throw new Error(`${basename(program)} ended with ${code}: ${errors.trim().split("\n").at(-1)}`);
}

async function run(program: string, args: string[]): Promise<{ code: number | null; output: string; errors: string }> {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  let errors = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (errors += text));
  const [code] = (await once(child, "close")) as [number | null];
  return { code, output, errors };
}

/** A server that sends its name and closes. */
async function greeter(name: string): Promise<Server> {
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.end(name);
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  return server;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await once(server.listen(0, "127.0.0.1"), "listening");
  const port = portOf(server);
  server.close();
  await once(server, "close");
  return port;
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}
