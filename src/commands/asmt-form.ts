/** ASMT's own form, `asmt -b …` and `asmt -r …`: the same work, and the exit status of ASMT. */

import { Command } from 'clipanion';

import type { Verb } from '../options.ts';
import { verbOfAsmtForm, type Values } from '../policy.ts';
import { AsmtCommand, flag } from './base.ts';

export class AsmtFormCommand extends AsmtCommand {
  static override paths = [Command.Default];
  override readonly form = 'asmt';

  backup = flag('backup');
  restore = flag('restore');

  protected override verb(): Verb {
    return verbOfAsmtForm({ backup: this.backup, restore: this.restore });
  }

  override values(): Values {
    return { ...super.values(), backup: this.backup, restore: this.restore };
  }
}
