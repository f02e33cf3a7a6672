// Entry of a data-plane thread. It is beside main.ts, because in the compiled binary every module's URL is the entry's.
import type { FromWorker, ToWorker } from "./messages.ts";
import { DataPlane } from "./worker/plane.ts";

declare const self: {
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
  postMessage(message: FromWorker): void;
};

let plane: DataPlane | null = null;

const crash = (error: unknown): void => {
  if (plane === null) throw error;
  plane.crash(error);
};
process.on("uncaughtException", crash);
process.on("unhandledRejection", crash);

self.onmessage = ({ data: message }): void => {
  switch (message.kind) {
    case "start":
      plane = new DataPlane(message, (answer) => self.postMessage(answer));
      return;
    case "apply":
      plane?.apply(message.plan);
      return;
    case "pool":
      plane?.update(message);
      return;
    case "end":
      plane?.end(message);
      return;
    case "follow":
      plane?.accessLog.follow(message.followers);
      return;
    case "settled":
      plane?.settled();
      return;
    case "exit":
      plane?.exit();
      return;
    case "stop":
      plane?.stop(message.spreadFromMs, message.deadlineMs);
  }
};
