/** The scripts that shells complete command lines with: each asks `sealsync __complete` and takes what answer.ts prints. @module */
import type { Shell } from '../shells.ts'

// `sync` may be another program in this shell; `sealsync` is ours.
const BASH = `# Completes command lines of sealsync (and sync) in bash: sealsync completion bash
_sealsync() {
  local kinds='' value about first=1
  COMPREPLY=()
  while IFS=$'\\t' read -r value about; do
    if [[ -n $first ]]; then
      kinds=" $value $about " first=''
    elif [[ -n $value ]]; then
      COMPREPLY+=("$value")
    fi
  done < <(command sealsync __complete bash "\${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null </dev/null)
  case $kinds in
    *' files '*)
      compopt -o filenames 2>/dev/null
      if [[ \${#COMPREPLY[@]} -eq 0 ]]; then
        compopt -o default 2>/dev/null
      else
        while IFS= read -r value; do COMPREPLY+=("$value"); done < <(compgen -f -- "$2")
      fi
      ;;
    *' directories '*) compopt -o filenames -o plusdirs 2>/dev/null ;;
  esac
  case $kinds in *' open '*) compopt -o nospace 2>/dev/null ;; esac
  case $kinds in *' paths '*) compopt -o filenames 2>/dev/null ;; esac
}
complete -F _sealsync sealsync sync
`

const ZSH = `#compdef sealsync sync
# Completes command lines of sealsync (and sync) in zsh: sealsync completion zsh
_sealsync() {
  local kinds='' line value first=1
  local -a plain open described
  local -a given
  given=("\${(@Q)words[2,CURRENT-1]}" "\${(Q)PREFIX}")
  while IFS= read -r line; do
    if [[ -n $first ]]; then
      kinds=" $line " first=''
      continue
    fi
    value=\${line%%$'\\t'*}
    if [[ $line == *$'\\t'* ]]; then
      described+=("\${value//:/\\\\:}:\${line#*$'\\t'}")
    elif [[ $value == */ ]]; then
      open+=("$value")
    else
      plain+=("$value")
    fi
  done < <(command sealsync __complete zsh -- "\${given[@]}" 2>/dev/null </dev/null)
  local found=1
  (( \${#described} )) && _describe 'sealsync' described && found=0
  (( \${#open} )) && compadd -S '' -- "\${open[@]}" && found=0
  (( \${#plain} )) && compadd -- "\${plain[@]}" && found=0
  [[ $kinds == *' files '* || $kinds == *' directories '* ]] && [[ $PREFIX == --*=* ]] && compset -P '*='
  [[ $kinds == *' files '* ]] && _files && found=0
  [[ $kinds == *' directories '* ]] && _files -/ && found=0
  return $found
}
if [[ $funcstack[1] == _sealsync ]]; then
  _sealsync "$@"
else
  compdef _sealsync sealsync sync
fi
`

const FISH = `# Completes command lines of sealsync (and sync) in fish: sealsync completion fish
function __sealsync_complete
  set -l given (commandline -opc)
  set -l word (commandline -ct | string unescape)
  set -l answer (command sealsync __complete fish -- $given[2..-1] "$word" 2>/dev/null </dev/null)
  set -q answer[1]; or return
  if string match -q '*files*' -- $answer[1]
    __fish_complete_path "$word"
  else if string match -q '*directories*' -- $answer[1]
    __fish_complete_directories "$word"
  end
  set -q answer[2]; and printf '%s\\n' $answer[2..-1]
end
complete -c sealsync -f -a '(__sealsync_complete)'
complete -c sync -f -a '(__sealsync_complete)'
`

export const COMPLETION_SCRIPTS: Readonly<Record<Shell, string>> = Object.freeze({ bash: BASH, zsh: ZSH, fish: FISH })
