// The user-space memory of an open TLS connection without traffic: that of memory.ts plus the TLS state.
import { withTls } from "../contenders.ts";
import { memoryOf } from "./memory.ts";

export const tlsMemory = memoryOf({ name: "tls-memory", contenders: withTls("ecdsa"), tls: true });
