/** `asmt restore`: what it means is in `policy.ts`. */

import type { Verb } from '../options.ts';
import { AsmtCommand } from './base.ts';

export class RestoreCommand extends AsmtCommand {
  static override paths = [['restore']];

  protected override verb(): Verb {
    return 'restore';
  }
}
