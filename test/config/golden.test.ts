// Each golden/NAME.toml with the output of `lb check` for it in golden/NAME.txt. UPDATE_GOLDEN=1 writes the outputs again.
import { chmodSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { checked } from "../../src/cli/check.ts";

const folder = fileURLToPath(new URL("./golden", import.meta.url));
const env = {
  SECRET: "hunter2-is-secret",
  LB_POOL: "app",
  // Not that of the machine.
  SSL_CERT_FILE: fileURLToPath(new URL("./fixtures/ca.pem", import.meta.url)),
};
const names = readdirSync(folder)
  .filter((file) => file.endsWith(".toml"))
  .map((file) => file.slice(0, -".toml".length));

// Git does not store such modes, and a key that all can read gets a warning.
beforeAll(() => {
  const fixtures = fileURLToPath(new URL("./fixtures", import.meta.url));
  for (const file of readdirSync(fixtures)) {
    if (file.endsWith(".key") || file === "combined.pem")
      chmodSync(`${fixtures}/${file}`, file === "open.key" ? 0o644 : 0o600);
  }
});

describe("lb check", () => {
  it.each(names)("reports of %s exactly the text beside it", (name) => {
    const { errors, lines, code } = checked(`${folder}/${name}.toml`, env);
    const said = [...errors, ...lines, `exit code ${code}`, ""].join("\n").replaceAll(`${folder}/`, "");
    const golden = `${folder}/${name}.txt`;
    if (process.env["UPDATE_GOLDEN"] === "1") writeFileSync(golden, said);
    expect(said).toBe(existsSync(golden) ? readFileSync(golden, "utf8") : "");
  });

  it("never shows a value from the environment, from a token or from a key", () => {
    for (const name of names) {
      const said = readFileSync(`${folder}/${name}.txt`, "utf8");
      expect(said, name).not.toMatch(/hunter2|s3cret|first-secret|second-secret|MIGHAgEA/);
    }
  });

  it("ends with the number of problems and exit code 2, or with one good line and 0", () => {
    for (const name of names) {
      const said = readFileSync(`${folder}/${name}.txt`, "utf8");
      expect(said, name).toMatch(/\n\d+ problems?\nexit code 2\n$|: fine \(.*\)\nexit code 0\n$/);
    }
  });
});
