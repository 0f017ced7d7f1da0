/** `asmt retire`: what it means is in `policy.ts`. */

import type { Verb } from '../options.ts';
import { AsmtCommand } from './base.ts';

export class RetireCommand extends AsmtCommand {
  static override paths = [['retire']];

  protected override verb(): Verb {
    return 'retire';
  }
}
