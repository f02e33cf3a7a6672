// A thread of bun.test.ts: serves the given listening descriptor, and is busy for ever once a client asks for it.
import { listenOnDescriptor } from "../../src/platform/bun.ts";

declare const self: { onmessage: (event: MessageEvent<number>) => void; postMessage(message: string): void };

self.onmessage = ({ data: fd }) => {
  listenOnDescriptor(fd, null, {
    binaryType: "uint8array",
    open: (socket) => void socket.write("thread"),
    data: () => {
      self.postMessage("busy");
      for (;;);
    },
    error: () => {},
  });
  self.postMessage("serving");
};
