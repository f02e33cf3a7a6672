import { expect, test } from "vitest";
import { isNameOfOne, nameInConfig, nameOfOne } from "../../src/core/backend-name.ts";

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

test("the port of an address may be left out", () => {
  for (const [text, address] of [
    ["app@10.0.0.1:80", "10.0.0.1:80"],
    ["app@10.0.0.1", "10.0.0.1:80"],
    ["app@[2001:db8::1]:80", "[2001:db8::1]:80"],
    ["app@2001:db8::1", "[2001:db8::1]:80"],
  ] as const)
    expect(isNameOfOne(text, "app", address), text).toBe(true);
  for (const text of ["app", "app@", "app@10.0.0.2", "app@10.0.0.1:81", "ap@10.0.0.1", "app@unix:/run/app.sock:80"])
    expect(isNameOfOne(text, "app", "10.0.0.1:80"), text).toBe(false);
  expect(isNameOfOne("app@", "app", "unix:/run/app.sock")).toBe(false);
});
