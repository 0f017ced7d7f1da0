/** `asmt verify`: what it means is in `policy.ts`. */

import type { Verb } from '../options.ts';
import { AsmtCommand } from './base.ts';

export class VerifyCommand extends AsmtCommand {
  static override paths = [['verify']];

  protected override verb(): Verb {
    return 'verify';
  }
}
