// The closed list of reasons for which health checks fail: the label in the metrics.

/**
 * refused: the connection was refused. timeout: the check was not complete within its timeout. tls: the TLS handshake failed. answer: the
 * backend's answer is wrong, or it closed before the answer was complete. failed: the connect failed for another reason.
 */
export const CHECK_FAILURES = ["refused", "timeout", "tls", "answer", "failed"] as const;
export type CheckFailure = (typeof CHECK_FAILURES)[number];
