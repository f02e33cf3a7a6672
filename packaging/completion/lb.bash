# bash completion for lb
_lb() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]}
  local flags values=none
  COMPREPLY=()
  case $before in
    --config|--token-file|--ca) COMPREPLY=($(compgen -f -- "$word")); return ;;
    --ready|--admin|--timeout|--client|--listener|--pool|--backend|--sort|--limit|--sni|--alpn|--end|--min-duration) return ;;
  esac
  if ((COMP_CWORD == 1)); then
    COMPREPLY=($(compgen -W "check demo schema health version completion man help status top reload drain ready maintenance weight connections clients explain config logs -v --version -h --help" -- "$word"))
    COMPREPLY+=($(compgen -f -X '!*.toml' -- "$word"))
    return
  fi
  case $command in
    check) flags="--deep -h --help" values=files ;;
    demo) flags="-h --help" values=none ;;
    schema) flags="-h --help" values=none ;;
    health) flags="--ready --admin --config --token-file --ca -h --help" values=files ;;
    version) flags="-h --help" values=none ;;
    completion) flags="-h --help" values=shells ;;
    man) flags="-h --help" values=none ;;
    help) flags="-h --help" values=some ;;
    status) flags="--admin --config --token-file --ca --json --watch --diff -h --help" values=none ;;
    top) flags="--admin --config --token-file --ca -h --help" values=none ;;
    reload) flags="--admin --config --token-file --ca -h --help" values=none ;;
    drain) flags="--admin --config --token-file --ca --timeout -h --help" values=backends ;;
    ready) flags="--admin --config --token-file --ca -h --help" values=backends ;;
    maintenance) flags="--admin --config --token-file --ca --timeout -h --help" values=backends ;;
    weight) flags="--admin --config --token-file --ca -h --help" values=backends ;;
    connections) flags="--admin --config --token-file --ca --client --listener --pool --backend --sort --limit --json --kill --yes -h --help" values=none ;;
    clients) flags="--admin --config --token-file --ca --sort --limit --json -h --help" values=none ;;
    explain) flags="--admin --config --token-file --ca --listener --client --sni --alpn --json -h --help" values=none ;;
    config) flags="--admin --config --token-file --ca --json -h --help" values=none ;;
    logs) flags="--admin --config --token-file --ca -f --follow --client --listener --pool --backend --end --min-duration --json -h --help" values=none ;;
  esac
  if [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$word"))
    return
  fi
  case $values in
    files) COMPREPLY=($(compgen -f -- "$word")) ;;
    backends)
      # A name with a port in it has a colon, at which bash splits words.
      local names
      names=$(lb completion backends 2>/dev/null)
      COMPREPLY=($(compgen -W "$names" -- "$word"))
      declare -F __ltrim_colon_completions >/dev/null && __ltrim_colon_completions "$word" ;;
    shells) COMPREPLY=($(compgen -W "bash zsh fish" -- "$word")) ;;
  esac
}
complete -o filenames -F _lb lb
