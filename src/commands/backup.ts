/** `asmt backup`: what it means is in `policy.ts`. */

import type { Verb } from '../options.ts';
import { AsmtCommand } from './base.ts';

export class BackupCommand extends AsmtCommand {
  static override paths = [['backup']];

  protected override verb(): Verb {
    return 'backup';
  }
}
