# shellcheck shell=bash
# Completion of asmt for bash. Written by npm run reference, from the table of options: do not edit.

# Offers the words of $1 that begin as the current one.
_asmt_words() {
  mapfile -t COMPREPLY < <(compgen -W "$1" -- "$current")
}

_asmt_directories() {
  compopt -o filenames
  mapfile -t COMPREPLY < <(compgen -d -- "$current")
}

_asmt_files() {
  compopt -o filenames
  mapfile -t COMPREPLY < <(compgen -f -- "$current")
}

_asmt() {
  local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} verb='' index
  COMPREPLY=()
  # What was typed as --option=value comes in three words.
  if [[ $current == = ]]; then
    current=''
  elif [[ $before == = ]] && ((COMP_CWORD > 2)); then
    before=${COMP_WORDS[COMP_CWORD - 2]}
  fi
  for ((index = 1; index < COMP_CWORD; index++)); do
    case ${COMP_WORDS[index]} in
      -n | --namespace | -i | --instance | -p | --path | -t | --threads | --config | --device | --deadline | --metrics | --ready | --progress)
        [[ ${COMP_WORDS[index + 1]} == = ]] && ((index++))
        ((index++))
        ;;
      help | list | preflight | backup | restore | verify | retire | export | run)
        verb=${COMP_WORDS[index]}
        break
        ;;
      -b* | --backup) verb=-b ;;
      -r* | --restore) verb=-r ;;
    esac
  done
  case $before in
    -n | --namespace)
      :
      return
      ;;
    -i | --instance)
      _asmt_words '0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15'
      return
      ;;
    -p | --path)
      _asmt_directories
      return
      ;;
    -t | --threads)
      :
      return
      ;;
    --config)
      _asmt_files
      return
      ;;
    --device)
      _asmt_files
      return
      ;;
    --deadline)
      :
      return
      ;;
    --metrics)
      _asmt_files
      return
      ;;
    --ready)
      _asmt_files
      return
      ;;
    --progress)
      _asmt_words 'text json'
      return
      ;;
  esac
  if [[ $current == -* ]]; then
    case $verb in
      '') _asmt_words '-b --backup -r --restore -h --help --version' ;;
      list) _asmt_words '-n --namespace -i --instance --deadline -v --verbose -q --quiet --json -h --help' ;;
      preflight) _asmt_words '-n --namespace -i --instance -p --path -z --compress -Z --columns --require-manifest --config --device --require-proof --replace --force-stale --force-host --allow-volatile --allow-private-ipc --deadline -v --verbose -q --quiet --json --progress -h --help' ;;
      backup) _asmt_words '-n --namespace -i --instance -p --path -z --compress -Z --columns -c --crc -t --threads -a --analyze --dry-run --config --device --replace --force-stale --allow-volatile --wait --deadline --metrics -v --verbose -q --quiet --json --progress -h --help' ;;
      restore) _asmt_words '-n --namespace -i --instance -p --path -z --compress -Z --columns -c --crc -t --threads -a --analyze --dry-run --require-manifest --config --device --require-proof --force-stale --force-host --allow-private-ipc --deadline --metrics -v --verbose -q --quiet --json --progress -h --help' ;;
      verify) _asmt_words '-n --namespace -i --instance -p --path -c --crc -t --threads -a --analyze --dry-run --require-manifest --config --device --require-proof --restorable --deadline --metrics -v --verbose -q --quiet --json --progress -h --help' ;;
      retire) _asmt_words '-n --namespace -i --instance -p --path --deadline -v --verbose -q --quiet --json --progress -h --help' ;;
      export) _asmt_words '-n --namespace -i --instance -p --path -z --compress -c --crc -t --threads -a --analyze --dry-run --config --device --force-stale --force-host --allow-volatile --deadline -v --verbose -q --quiet --json --progress -h --help' ;;
      run) _asmt_words '-n --namespace -i --instance -p --path -z --compress -Z --columns -c --crc -t --threads --require-manifest --config --device --require-proof --force-host --allow-volatile --allow-private-ipc --wait --deadline --metrics --hold --ready -v --verbose -q --quiet --progress -h --help' ;;
      -b) _asmt_words '-n --namespace -i --instance -p --path -z --compress -Z --columns -c --crc -t --threads -a --analyze --dry-run --config --device --replace --force-stale --allow-volatile --wait --deadline --metrics -v --verbose -q --quiet --json --progress -h --help' ;;
      -r) _asmt_words '-n --namespace -i --instance -p --path -z --compress -Z --columns -c --crc -t --threads -a --analyze --dry-run --require-manifest --config --device --require-proof --force-stale --force-host --allow-private-ipc --deadline --metrics -v --verbose -q --quiet --json --progress -h --help' ;;
    esac
    return
  fi
  case $verb in
    '') _asmt_words 'help list preflight backup restore verify retire export run' ;;
    help) _asmt_words 'list preflight backup restore verify retire export run' ;;
    preflight) _asmt_words 'backup restore'; _asmt_directories ;;
    backup | restore | verify | retire | export | run) _asmt_directories ;;
  esac
}

complete -F _asmt asmt
