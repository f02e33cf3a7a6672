// The grain of a worker's time.

/** One tick of the worker's clock: timeouts end within two ticks after their time. */
export const TICK_MS = 50;

/** A tick that is so late follows a stall: of the thread, the process or the machine. */
export const STALL_MS = 2 * TICK_MS;

/** `wheel.now` lags by up to a tick, so timeouts start a tick later: they may end late, never early. */
export const LATE_MS = TICK_MS;
