// The input and the result of checks of a whole config.
import type { KeyPath } from "./problem.ts";
import type { FileConfig } from "./schema.ts";

/** A problem or a warning that has no line and column yet. */
export interface Finding {
  path: KeyPath;
  message: string;
  hint?: string;
  warning?: true;
}

/** A config to check. */
export interface Subject {
  /** The values that the schema made of the file; only what `isSound` or `isWhole` confirms is valid. */
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
