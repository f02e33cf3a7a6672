// What an open TLS connection without traffic holds in user space: the state of the handshake comes to what memory.ts tells.
import { withTls } from "../contenders.ts";
import { memoryOf } from "./memory.ts";

export const tlsMemory = memoryOf({ name: "tls-memory", contenders: withTls("ecdsa"), tls: true });
