# What the user of a package does with it: sourced by the tests of packages, in an IPC namespace.
#
# usage: work DIRECTORY COMMAND...: backs up, verifies and restores in each form, and compares.
# SIM is the simulator that stands in for a server.
work() {
  directory=$1
  shift
  mkdir -p "$directory"
  $SIM make --stages 2 --stage-size 5MiB --si-stages 1 --stripes 2 --stripe-size 5MiB > /dev/null
  before=$($SIM sum --all)
  "$@" list | grep -q test
  for form in "" -z -Z; do
    target=$directory/backup$form
    "$@" backup $form "$target"
    "$@" verify "$target"
  done
  for form in "" -z -Z; do
    $SIM remove > /dev/null
    test -z "$($SIM sum --all)"
    "$@" restore --allow-private-ipc "$directory/backup$form"
    test "$($SIM sum --all)" = "$before"
  done
  $SIM remove > /dev/null
}
