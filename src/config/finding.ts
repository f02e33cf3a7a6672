// What the checks of a whole config look at, and what they find.
import type { KeyPath } from "./problem.ts";
import type { FileConfig } from "./schema.ts";

/** A problem or a warning, not yet placed in the file. */
export interface Finding {
  path: KeyPath;
  message: string;
  hint?: string;
  warning?: true;
}

/** A config to check. */
export interface Subject {
  /** What the schema made of the file; wrong in the places that `isSound` and `isWhole` deny. */
  config: FileConfig;
  /** Whether neither the value, nor anything above or below it, has a problem. */
  isSound: (path: KeyPath) => boolean;
  /** Whether neither the value nor anything above it has a problem. */
  isWhole: (path: KeyPath) => boolean;
  /** Whether the file has an array there. */
  isArray: (path: KeyPath) => boolean;
  /** Folder of the config file. */
  folder: string;
}
