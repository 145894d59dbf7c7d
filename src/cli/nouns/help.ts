/** completion, man: what helps at the terminal. The command `help` itself is in commander.ts. @module */
import { COMMON } from '../options/shared.ts'
import { SHELLS, type Shell } from '../shells.ts'
import type { CommandSpec } from './command.ts'

/** @param all - All commands, these among them: the manual tells of them. */
export const helping = (all: () => readonly CommandSpec[]): CommandSpec[] => [
  {
    name: 'completion',
    group: 'program',
    arguments: '<shell>',
    summary: `print a script that completes command lines, for ${SHELLS.join(', ')}`,
    takes: ['shell'],
    examples: [
      ['completion bash', 'into ~/.local/share/bash-completion/completions/sealsync'],
      ['completion zsh', 'into a file _sealsync in a directory of $fpath'],
      ['completion fish', 'into ~/.config/fish/completions/sealsync.fish'],
    ],
    options: COMMON,
    withProblems: true,
    check: ([shell]) => (SHELLS.includes(shell as Shell) ? undefined : `the shells are ${SHELLS.join(', ')}`),
    action: async () => (await import('../commands/help.ts')).completion,
  },
  {
    name: 'man',
    group: 'program',
    arguments: '[directory]',
    summary: 'write the manual pages below a directory, in man1 and man7; without one, print the first page',
    examples: [
      ['man ~/.local/share/man', 'then: man sealsync-upload'],
      ['man', 'as roff; to read it: sync man | man -l -'],
    ],
    options: COMMON,
    withProblems: true,
    action: async () => (await import('../commands/help.ts')).manOf(all()),
  },
]
