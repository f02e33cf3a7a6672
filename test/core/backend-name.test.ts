import { expect, test } from "vitest";
import { nameInConfig, nameOfOne } from "../../src/core/backend-name.ts";

test("one address of a host name is shown with the name and the address, and has the name of the config", () => {
  const address = "10.0.0.1:80";
  const name = nameOfOne("app.example:80", address);
  expect(name).toBe("app.example:80@10.0.0.1:80");
  expect(nameInConfig({ name, address })).toBe("app.example:80");
});

test("other backends have one name", () => {
  for (const name of ["10.0.0.1:80", "big", "unix:@app"]) {
    expect(nameInConfig({ name, address: "10.0.0.1:80" })).toBe(name);
    expect(nameInConfig({ name, address: name })).toBe(name);
  }
});
