// A program on the terminal of `lb top` that fails at a key: "k" throws, any other key rejects a promise.
import { Terminal } from "../../src/cli/top/terminal.ts";

const terminal = new Terminal(process.stdin, process.stdout, {
  key: (key) => {
    if ("char" in key && key.char === "k") throw new Error("the key failed");
    void Promise.reject(new Error("the promise failed"));
  },
  resized: () => undefined,
  ended: () => undefined,
});
terminal.open();
terminal.show(["waiting for a key"]);
