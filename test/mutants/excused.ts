// Guards that no test can miss, each with the reason: without them the outcome is the same. The mutation check fails
// when one of these is no longer in its file.

export interface Excuse {
  readonly file: string;
  /** As the mutation check prints it. */
  readonly text: string;
  readonly reason: string;
}

export const EXCUSED: readonly Excuse[] = [];
