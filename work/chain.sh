# shellcheck shell=bash
# What the chain scripts have in common; they source it. Paths may hold any character but NUL: no
# path goes through `read`, `echo` or a bare $(...), and each is told from the options by `--` or `=`.
umask 077 # photos of faces are nobody else's business

here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
own=$here/work python=$here/.venv/bin/python
if [ -d "$here/sort_faces_work" ]; then # installed by pip: nothing is written there
    own=${XDG_STATE_HOME:-$HOME/.local/state}/sort_faces python=$here/../../../bin/python
fi
logs=${SORT_FACES_LOGS:-$own/logs}
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ -x "$python" ] && PYTHON=$python
fi

# One line that says what is wrong with the environment; ends the script.
fail() {
    local name=${0##*/}
    printf '%s: %s\n' "${name%.sh}" "$1" >&2
    exit 2
}

# need VARIABLE WHAT: refuse to begin without it.
need() {
    [ -n "${!1:-}" ] || fail "set $1 to $2"
}

# yes_or_no VARIABLE: refuse any other value; not set is no answer, and fine.
yes_or_no() {
    case ${!1:-no} in
    yes | no) ;;
    *) fail "$1=${!1} is neither yes nor no" ;;
    esac
}

# options_of VARIABLE: its words, quoted as in a shell, in the array `extra`.
extra=()
options_of() {
    local words
    words=$(xargs -r printf '%s\n' <<<"${!1:-}" 2>/dev/null) || fail "$1=${!1}: a quote is not closed"
    # shellcheck disable=SC2034 # the scripts use it
    [ -z "$words" ] || mapfile -t extra <<<"$words"
}

# alone FILE OVER STATUS: hold a lock on FILE until this script ends, on descriptor 9.
alone() {
    command -v flock >/dev/null || fail "needs flock (of util-linux)"
    { exec 9>>"$1"; } 2>/dev/null || fail "$1: cannot be written"
    flock --nonblock 9 || fail "a chain over $2 is running already; see work/$3"
}

# log_to FILE: everything goes there from now on, the exit code last; what was stderr is 4.
log_to() {
    log=$1
    exec 4>&2
    { exec >>"$log"; } 2>/dev/null || fail "$log: cannot be written"
    exec 2>&1
    trap 'code=$?; say "chain: exit $code"' EXIT
    trap 'stop 143' TERM
    trap 'stop 130' INT
}

# stop CODE: end the step that runs, which is left as after a Ctrl-C, and then the chain.
stop() {
    local running
    running=$(jobs -p)
    [ -z "$running" ] || kill -TERM "$running" 2>/dev/null || true
    wait
    exit "$1"
}

# A line of the chain itself, as status.sh reads them.
say() {
    printf '=== %s %s\n' "$(date '+%F %T')" "$1"
}

# step NAME ARGUMENTS: one command of the tool. If it fails, the line that explains it also goes to
# what was stderr.
step() {
    local name=$1 started=$SECONDS code=0
    shift
    # 9 is closed: the lock is the chain's alone. A signal interrupts `wait`, not a step.
    "$PYTHON" "$here/sort_faces.py" "$@" 4>&- 9>&- &
    wait $! || code=$?
    say "$name: exit $code after $((SECONDS - started)) s"
    [ "$code" -eq 0 ] || tail -n 2 <"$log" | sed -n 1p >&4
    return "$code"
}

# newest NAME: the youngest log NAME-*.log in `log`, or none.
newest() {
    local file
    log=
    for file in "$logs/$1"-*.log; do
        if [ -f "$file" ] && { [ -z "$log" ] || [ ! "$log" -nt "$file" ]; }; then log=$file; fi
    done
}
