#!/bin/sh
# Runs all tests, in two processes at once: those with real servers wait a lot, the others compute.
# Takes the Python to run them with; gives their output, one process's behind the other's; fails where one fails.
# Guarantees: ended by a signal, it ends both.
set -u

python=$1
log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'kill "$other" 2>/dev/null; exit 130' INT
trap 'kill "$other" 2>/dev/null; exit 143' TERM HUP

"$python" -m coverage run -m pytest --ignore tests/e2e >"$log" 2>&1 &
other=$!
"$python" -m coverage run -m pytest tests/e2e
first=$?
wait "$other"
second=$?
echo
cat "$log"
[ "$first" -eq 0 ] && [ "$second" -eq 0 ]
