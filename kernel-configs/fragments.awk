# The lines of configuration fragments: merged into one file for the kernel's build system, or held against the
# configuration that came out of it. POSIX awk.
#
#   awk -v mode=merge -f fragments.awk FRAGMENT...                             the settings alone, in order
#   awk -v mode=check -v whitelist=FILE -v final=FILE -f fragments.awk FILE FRAGMENT...
#                                          FILE: the whitelist, if there is one; the final .config; the fragments
#
# A line is a setting with its reason after it:  CONFIG_BRIDGE=y # why      # CONFIG_IP_PNP is not set # why
# The check fails when a setting does not hold and no line of the whitelist, with its reason, excuses it.

function shown(symbol, value) { return value == "n" ? "# " symbol " is not set" : symbol "=" value }
function place() { return name(FILENAME) ":" FNR }
function name(path) { sub(/.*\//, "", path); return path }
function trouble(text) { print text > "/dev/stderr"; failed++ }

# Sets symbol, value and reason from $0; 0 for what is no setting.
function parse(   rest) {
    if (match($0, /^# CONFIG_[A-Za-z0-9_]+ is not set/)) {
        symbol = $2
        value = "n"
        rest = substr($0, RLENGTH + 1)
    } else if (match($0, /^CONFIG_[A-Za-z0-9_]+=("[^"]*"|[^ "]+)/)) {
        rest = substr($0, RLENGTH + 1)
        value = substr($0, 1, RLENGTH)
        symbol = substr(value, 1, index(value, "=") - 1)
        value = substr(value, length(symbol) + 2)
    } else {
        if ($0 !~ /^#/ && NF > 0) trouble(place() ": no setting: " $0)
        else if ($1 == "#" && $2 ~ /^CONFIG_/ && $3 == "is") trouble(place() ": not \"# " $2 " is not set\": " $0)
        return 0
    }
    reason = rest
    if (!sub(/^ +# +/, "", reason) && rest !~ /^ *$/) trouble(place() ": after the value there may be a reason (# why), not: " rest)
    return 1
}

function read_whitelist() {
    if (reason == "" || reason ~ /^ *$/) trouble(place() ": no reason: " $0)
    excused[symbol, value] = place()
    lines_of_whitelist[++entries] = symbol SUBSEP value
}

function read_fragment() {
    lines++
    if (!(symbol in said)) {
        said[symbol] = value
        said_at[symbol] = place()
    } else if (said[symbol] != value)
        print "redefined: " shown(symbol, said[symbol]) " (" said_at[symbol] ") by " shown(symbol, value) " (" place() ")"
    else
        repeated++
    if (!(symbol in is) ? value == "n" : is[symbol] == value) return
    needed[symbol, value] = 1
    if (!((symbol, value) in excused))
        trouble(place() ": does not hold: " shown(symbol, value) " (the result has " (symbol in is ? shown(symbol, is[symbol]) : "no " symbol) ")")
}

FILENAME == final { if (parse()) is[symbol] = value; next }
!parse() { next }
mode == "merge" { print shown(symbol, value); next }
FILENAME == whitelist { read_whitelist(); next }
{ read_fragment() }

END {
    if (mode == "check") {
        for (i = 1; i <= entries; i++) {
            split(lines_of_whitelist[i], part, SUBSEP)
            if (!(lines_of_whitelist[i] in needed)) print excused[part[1], part[2]] ": not needed any more: " shown(part[1], part[2])
        }
        if (failed) print failed " faults: a dependency is missing, or this kernel has no such option; a line of the kernel's whitelist, with a reason, excuses a setting" > "/dev/stderr"
        else print lines " lines hold, " entries + 0 " excused, " repeated + 0 " said twice"
    }
    exit failed > 0
}
