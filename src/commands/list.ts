/** `asmt list`: what it means is in `policy.ts`. */

import type { Verb } from '../options.ts';
import { AsmtCommand } from './base.ts';

export class ListCommand extends AsmtCommand {
  static override paths = [['list']];

  protected override verb(): Verb {
    return 'list';
  }
}
