// Bytes in one direction over TLS, on one stream or many: the cost of encryption.
import { withTls } from "../contenders.ts";
import { bulkOf } from "./bulk.ts";

const contenders = withTls("ecdsa");
export const tlsBulk = bulkOf({ name: "tls-bulk", streams: 1, contenders, wanted: 1.4, tls: true });
export const tlsBulk50 = bulkOf({ name: "tls-bulk50", streams: 50, contenders, wanted: 1.4, tls: true });
