/** The fractional parts of its multiples are evenly spread over 0 to 1, however many there are. */
export const GOLDEN_RATIO = (Math.sqrt(5) - 1) / 2;
