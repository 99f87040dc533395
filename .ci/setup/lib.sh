# shellcheck shell=sh
# What the set-up scripts share. Sourced with VERB set to the word their lines begin with.
# Needs nothing beyond a minimal Debian: sh, coreutils, util-linux, apt, dpkg.

trap 'exit 129' HUP INT TERM # an EXIT trap of dash is skipped when a signal ends it

# Progress, for people: stderr, so that stdout stays free for data. A copy of it, so that what a script
# has to say is seen while it sends the output of a tool into a log.
exec 3>&2
say() { printf '%s: %s\n' "$VERB" "$*" >&3; }

fail() {
    printf '%s: error: %s\n' "$VERB" "$*" >&3
    exit 1
}

# as_root WHY COMMAND...: COMMAND with root rights, and the reason told before a password is asked for.
as_root() {
    _why=$1
    shift
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        say "sudo, because root rights are needed to $_why"
        sudo -- "$@"
    else
        fail "root rights are needed to $_why: run this as root, or install sudo"
    fi
}

# Where things that take long to make outlive the clone.
cache_dir() {
    _home=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}
    printf '%s\n' "${BRIDGEHEAD_CACHE:-${XDG_CACHE_HOME:-$_home/.cache}/bridgehead}"
}

# digest [FILE...]: 16 hexadecimal digits over the names and contents of FILEs, or over stdin.
# shellcheck disable=SC2120 # with no FILE it reads stdin
digest() {
    if [ $# -gt 0 ]; then sha256sum "$@"; else cat; fi | sha256sum | cut -c1-16
}

# only_one NAME: holds a lock of that name until the script ends; two verbs under make -j wait for each other.
only_one() {
    mkdir -p "$(cache_dir)/locks"
    exec 9>"$(cache_dir)/locks/$1"
    wait_for_lock 9 "$1"
}

# wait_for_lock DESCRIPTOR NAME
wait_for_lock() {
    flock -n "$1" && return
    say "waiting for another run that holds $(cache_dir)/locks/$2"
    flock "$1"
}

# link_tree FROM TO: TO becomes a copy of FROM, by hard links where one file system holds both.
link_tree() {
    mkdir -p "$(dirname "$2")"
    rm -rf "$2.new" "$2.old"
    cp -al "$1" "$2.new" 2>/dev/null || {
        rm -rf "$2.new"
        cp -a "$1" "$2.new"
    }
    if [ -e "$2" ]; then mv "$2" "$2.old"; fi
    mv "$2.new" "$2"
    rm -rf "$2.old"
}
