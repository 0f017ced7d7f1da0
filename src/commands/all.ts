/**
 * The commands: one for each verb, and ASMT's own form, `asmt -b …` and `asmt -r …`, which does the
 * same work and has the exit status of ASMT.
 */

import { Cli, Command } from 'clipanion';

import type { Values, Verb } from '../options.ts';
import { verbOfAsmtForm } from '../policy.ts';
import { AsmtCommand } from './base.ts';

function ofVerb(verb: Verb): new () => AsmtCommand {
  return class extends AsmtCommand {
    static override paths = [[verb]];

    protected override verb(): Verb {
      return verb;
    }
  };
}

class AsmtFormCommand extends AsmtCommand {
  static override paths = [Command.Default];
  override readonly form = 'asmt';

  protected override verb(values: Values): Verb {
    return verbOfAsmtForm(values);
  }
}

/**
 * The command of this name; that of ASMT's form without one. clipanion is given no other: it would
 * prepare for all of them.
 */
export function commandOf(verb: Verb | null): AsmtCommand {
  const cli = new Cli({ binaryName: 'asmt' });
  cli.register(verb === null ? AsmtFormCommand : ofVerb(verb));
  return cli.process(verb === null ? [] : [verb]) as AsmtCommand;
}
