/**
 * The commands: one for each verb, and ASMT's own form, `asmt -b …` and `asmt -r …`, which does the
 * same work and has the exit status of ASMT.
 */

import { Command } from 'clipanion';

import { VERBS, type Values, type Verb } from '../options.ts';
import { verbOfAsmtForm } from '../policy.ts';
import { AsmtCommand } from './base.ts';

const OF_VERBS = VERBS.map(
  (verb) =>
    class extends AsmtCommand {
      static override paths = [[verb]];

      protected override verb(): Verb {
        return verb;
      }
    },
);

class AsmtFormCommand extends AsmtCommand {
  static override paths = [Command.Default];
  override readonly form = 'asmt';

  protected override verb(values: Values): Verb {
    return verbOfAsmtForm(values);
  }
}

export const COMMANDS = [...OF_VERBS, AsmtFormCommand];
