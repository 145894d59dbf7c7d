/** fast-check with our seed; tests import it from here. */
import fc from 'fast-check'
import { SEED } from './seed.ts'

fc.configureGlobal({ seed: SEED })

export default fc
