/**
 * The commands: one for each verb, and ASMT's own form, `asmt -b …` and `asmt -r …`, which does the
 * same work and has the exit status of ASMT. `run` is made of two verbs: see `run.ts`.
 */

import { Cli, Command } from 'clipanion';

import type { Values, Verb } from '../options.ts';
import { verbOfAsmtForm, type EngineVerb } from '../policy.ts';
import { AsmtCommand } from './base.ts';
import { RunCommand } from './run.ts';

function ofVerb(verb: EngineVerb): new () => AsmtCommand {
  return class extends AsmtCommand {
    static override paths = [[verb]];

    protected override verb(): EngineVerb {
      return verb;
    }
  };
}

class AsmtFormCommand extends AsmtCommand {
  static override paths = [Command.Default];
  override readonly form = 'asmt';

  protected override verb(values: Values): EngineVerb {
    return verbOfAsmtForm(values);
  }
}

/**
 * The command of this name; that of ASMT's form without one. clipanion is given no other: it would
 * prepare for all of them.
 */
export function commandOf(verb: Verb | null): AsmtCommand {
  const cli = new Cli({ binaryName: 'asmt' });
  cli.register(verb === null ? AsmtFormCommand : verb === 'run' ? RunCommand : ofVerb(verb));
  return cli.process(verb === null ? [] : [verb]) as AsmtCommand;
}
