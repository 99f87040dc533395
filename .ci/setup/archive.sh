# shellcheck shell=sh
# Packages of a pinned Debian suite, whatever this machine runs, without installing them: a private
# apt configuration with its own sources, lists and (empty) status. Sourced after lib.sh.

# The mirrors this machine already uses, one "SUITE URI" a line. apt itself reads its sources, so both
# formats, disabled entries and mirror lists are understood. No network.
host_archives() {
    # shellcheck disable=SC2016
    apt-get indextargets --no-release-info --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' \
        'Created-By: Packages' | awk '$2 == "main" && !seen[$1, $3]++ { print $1, $3 }'
}

# host_mirror SUFFIX: the URI of this machine's own suite (SUFFIX empty) or of its -security suite.
# Third parties use the same suite names: what also has -updates is the distribution's own archive.
host_mirror() {
    # shellcheck source=/dev/null
    _codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    host_archives | awk -v suffix="$1" -v codename="$_codename" '
        function own(suite, tail) { return suite == codename tail || suite ~ "^(old)?stable" tail "$" }
        own($1, "-updates") { updates[$2] = 1 }
        own($1, suffix) { found[++n] = $2 }
        END {
            for (i = 1; i <= n; i++) if (found[i] in updates) { print found[i]; exit }
            if (n) print found[1]
        }'
}

# archive_open SUITE [ARCHITECTURE]: sets ARCHIVE, the folder of the private configuration, and waits until no one else
# uses it. The architecture is amd64 if none is given: what boots it, not what builds.
archive_open() {
    ARCHIVE_ARCHITECTURE=${2:-amd64}
    mkdir -p "$(cache_dir)/locks"
    exec 8>"$(cache_dir)/locks/archive"
    wait_for_lock 8 archive
    ARCHIVE=$(cache_dir)/apt/$1
    [ "$ARCHIVE_ARCHITECTURE" = amd64 ] || ARCHIVE=$ARCHIVE-$ARCHIVE_ARCHITECTURE
    _keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -e "$_keyring" ] || fail "$_keyring is missing: install the package debian-archive-keyring"
    _main=${BRIDGEHEAD_MIRROR:-$(host_mirror '')}
    _security=${BRIDGEHEAD_SECURITY_MIRROR:-$(host_mirror -security)}
    [ -n "$_main" ] || fail "apt's sources name no Debian mirror: set BRIDGEHEAD_MIRROR=URI"
    [ -n "$_security" ] || say "warning: apt's sources name no -security suite: packages come without security updates (BRIDGEHEAD_SECURITY_MIRROR=URI)"
    mkdir -p "$ARCHIVE/lists/partial" "$ARCHIVE/debs/partial" "$ARCHIVE/none"
    : >"$ARCHIVE/status"
    {
        printf 'deb [signed-by=%s] %s %s %s\n' "$_keyring" "$_main" "$1" "main non-free-firmware"
        printf 'deb [signed-by=%s] %s %s %s\n' "$_keyring" "$_main" "$1-updates" "main non-free-firmware"
        [ -z "$_security" ] ||
            printf 'deb [signed-by=%s] %s %s %s\n' "$_keyring" "$_security" "$1-security" "main non-free-firmware"
    } >"$ARCHIVE/sources.new"
    if cmp -s "$ARCHIVE/sources.new" "$ARCHIVE/sources.list"; then
        rm "$ARCHIVE/sources.new"
    else
        rm -f "$ARCHIVE/fresh"
        mv "$ARCHIVE/sources.new" "$ARCHIVE/sources.list"
    fi
}

# archive_close: lets others at it before the script ends.
archive_close() { exec 8>&-; }

# archive_apt TOOL ARGUMENTS...: apt-get or apt-cache on the private configuration. The sandbox user of
# apt may not enter a home directory, hence APT::Sandbox::User; the host's own hooks don't concern us.
archive_apt() {
    _tool=$1
    shift
    "$_tool" -q \
        -o Dir::Etc::sourcelist="$ARCHIVE/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State::lists="$ARCHIVE/lists" -o Dir::State::status="$ARCHIVE/status" \
        -o Dir::State::extended_states="$ARCHIVE/extended_states" \
        -o Dir::Cache::archives="$ARCHIVE/debs" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts="$ARCHIVE/none" \
        -o APT::Architecture="$ARCHIVE_ARCHITECTURE" -o APT::Architectures="$ARCHIVE_ARCHITECTURE" -o APT::Default-Release= \
        -o APT::Sandbox::User="$(id -un)" -o Acquire::Retries=3 -o Acquire::Languages=none \
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
        -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false "$@"
}

# Package lists, fetched anew when they are older than six hours or REFRESH is set.
archive_update() {
    if [ -z "${REFRESH:-}" ] && [ -n "$(find "$ARCHIVE/fresh" -mmin -360 2>/dev/null)" ]; then return; fi
    say "fetching package lists of Debian $(basename "$ARCHIVE")"
    rm -f "$ARCHIVE/fresh"
    # By default apt takes a mirror that does not answer for a warning.
    archive_apt apt-get -o APT::Update::Error-Mode=any update >"$ARCHIVE/update.log" 2>&1 || {
        cat "$ARCHIVE/update.log" >&2
        fail "no package lists from the mirrors in $ARCHIVE/sources.list: see above; BRIDGEHEAD_MIRROR=URI names another mirror"
    }
    touch "$ARCHIVE/fresh"
}

# archive_versions PACKAGE...: "NAME=VERSION" of the candidate of each that exists, one a line.
archive_versions() {
    archive_apt apt-cache policy "$@" |
        awk '/^[^ ]/ { sub(":$", "", $1); name = $1 } $1 == "Candidate:" && $2 != "(none)" { print name "=" $2 }'
}

# archive_require PACKAGE...: the same, and an error that names what the suite does not have.
archive_require() {
    _found=$(archive_versions "$@")
    for _package; do
        printf '%s\n' "$_found" | grep -q "^$_package=" ||
            fail "Debian $(basename "$ARCHIVE") has no package $_package on the mirrors in $ARCHIVE/sources.list"
    done
    printf '%s\n' "$_found"
}

# archive_unpack DIR NAME=VERSION...: the packages' files under DIR. Packages already here are not fetched again.
archive_unpack() {
    _into=$1
    shift
    (cd "$ARCHIVE/debs" && archive_apt apt-get download "$@" >download.log 2>&1) || {
        cat "$ARCHIVE/debs/download.log" >&2
        fail "cannot fetch $*: see above; REFRESH=1 looks for newer package lists"
    }
    mkdir -p "$_into"
    for _package; do
        dpkg -x "$(archive_deb "$_package")" "$_into" || fail "cannot unpack $_package: see above"
    done
}

# archive_deb NAME=VERSION: the file of a fetched package; apt writes a colon in a version as %3a.
archive_deb() {
    _version=$(printf '%s' "${1#*=}" | sed 's/:/%3a/g')
    for _file in "$ARCHIVE/debs/${1%%=*}_${_version}"_*.deb; do
        [ -e "$_file" ] || fail "$_file is not there although apt fetched it"
        printf '%s\n' "$_file"
    done
}
