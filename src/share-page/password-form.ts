/**
 * Asking for a password. After a wrong one the next try has to wait, longer each time.
 * @module
 */
import { type Announcer, el } from './dom.ts'
import { Failure } from './failure.ts'
import { wordsFor } from './words.ts'

const LONGEST_PAUSE_S = 30

export interface PasswordTexts {
  readonly label: string
  /** Where the password goes. */
  readonly hint: string
  readonly submit: string
  readonly busy: string
}

/**
 * A form for a password.
 *
 * @param onPassword - Rejects with `PASSWORD_WRONG` to ask again; every other failure goes to `onFailure`.
 */
export function passwordForm(
  texts: PasswordTexts,
  announcer: Announcer,
  onPassword: (password: string) => Promise<void>,
  onFailure: (error: unknown) => void,
): HTMLFormElement {
  const input = el('input', {
    id: 'password',
    type: 'password',
    autocomplete: 'off',
    autocapitalize: 'off',
    spellcheck: 'false',
    required: true,
    'aria-describedby': 'password-hint password-problem',
  })
  const submit = el('button', { type: 'submit', class: 'primary' }, texts.submit)
  const reveal = el('button', { type: 'button', class: 'quiet', 'aria-pressed': 'false' }, 'Show')
  const problem = el('p', { id: 'password-problem', class: 'problem', hidden: true })
  reveal.addEventListener('click', () => {
    const isShown = input.type === 'text'
    input.type = isShown ? 'password' : 'text'
    reveal.setAttribute('aria-pressed', String(!isShown))
    reveal.textContent = isShown ? 'Show' : 'Hide'
  })
  const form = el(
    'form',
    {},
    el('label', { for: 'password' }, texts.label),
    el('div', { class: 'field' }, input, reveal),
    el('p', { id: 'password-hint', class: 'hint' }, texts.hint),
    problem,
    submit,
  )
  let wrong = 0
  const setBusy = (text: string | undefined): void => {
    submit.disabled = text !== undefined
    submit.textContent = text ?? texts.submit
    form.toggleAttribute('aria-busy', text !== undefined)
  }
  /** The more were wrong, the longer. Who has the link can try elsewhere as fast as a computer is; this is against trying here. */
  const wait = (seconds: number): void => {
    setBusy(seconds <= 0 ? undefined : `Wait ${seconds} s`)
    if (seconds > 0) setTimeout(() => wait(seconds - 1), 1000)
  }
  const refuse = (error: unknown): void => {
    const isLocked = error instanceof Failure && error.code === 'LOCKED'
    if (!isLocked && !(error instanceof Failure && error.code === 'PASSWORD_WRONG')) {
      onFailure(error)
      return
    }
    const { title, text } = wordsFor(error.code)
    problem.hidden = false
    problem.textContent = `${title}. ${text}`
    announcer.say(problem.textContent)
    input.setAttribute('aria-invalid', 'true')
    input.focus()
    input.select()
    const pause = 2 ** Math.min(wrong++, 10)
    wait(Math.min(LONGEST_PAUSE_S, isLocked ? Math.ceil((error.retryAfterMs ?? 0) / 1000) || pause : pause))
  }
  form.addEventListener('submit', (event) => {
    event.preventDefault()
    if (submit.disabled || input.value === '') return
    setBusy(texts.busy)
    onPassword(input.value).then(() => {
      input.value = ''
      setBusy(undefined)
    }, refuse)
  })
  return form
}
