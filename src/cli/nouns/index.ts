/** All commands, in the order of the help. @module */
import { ACCOUNT } from './account.ts'
import { BACKUP } from './backup.ts'
import { CHECKS } from './checks.ts'
import type { CommandSpec } from './command.ts'
import { COMPARE } from './compare.ts'
import { CONFIG } from './config.ts'
import { helping } from './help.ts'
import { INSTALLATION } from './installation.ts'
import { KEYS } from './keys.ts'
import { PAIRS } from './pairs.ts'
import { PLANS } from './plans.ts'
import { PROFILE } from './profile.ts'
import { ON_SERVER } from './remote.ts'
import { RULES } from './rules.ts'
import { RUNS } from './runs.ts'
import { SERVE } from './serve.ts'
import { SESSION } from './session.ts'
import { REQUEST, SHARE } from './shares.ts'
import { UPLOAD_DOWNLOAD } from './transfers.ts'

export const COMMANDS: readonly CommandSpec[] = [
  ...ACCOUNT,
  SESSION,
  PROFILE,
  CONFIG,
  ...CHECKS,
  KEYS,
  ...UPLOAD_DOWNLOAD,
  ...ON_SERVER,
  SHARE,
  REQUEST,
  ...PAIRS,
  ...PLANS,
  ...COMPARE,
  ...RUNS,
  RULES,
  ...BACKUP,
  SERVE,
  ...INSTALLATION,
  ...helping(() => COMMANDS),
]
