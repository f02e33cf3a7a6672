// The program of backend-process.ts: `bun greeting-backend.ts PORT GREETING`. Greets with a line and sends back what it gets. A line on
// its input is the greeting from then on.
import { createInterface } from "node:readline";

let greeting = process.argv[3] ?? "";
Bun.listen({
  hostname: "127.0.0.1",
  port: Number(process.argv[2]),
  socket: {
    open: (socket) => void socket.write(`${greeting}\n`),
    data: (socket, chunk) => void socket.write(chunk),
    end: (socket) => void socket.end(),
    error: (socket) => socket.terminate(),
  },
});
process.stdout.write("listens\n");
// When the test ends, its input ends, and this process exits.
createInterface({ input: process.stdin })
  .on("line", (line) => {
    greeting = line;
    process.stdout.write("noted\n");
  })
  .on("close", () => process.exit());
