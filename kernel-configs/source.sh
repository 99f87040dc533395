# shellcheck shell=sh disable=SC2154
# A kernel from source: its tree, its configuration merged from fragments and checked, its build. Sourced after
# archive.sh with $here, $name and the recipe's words set.

# What the sources and the result are made with; the kernel's own tools want no other locale.
export LC_ALL=C KBUILD_BUILD_USER=bridgehead KBUILD_BUILD_HOST=bridgehead KBUILD_BUILD_VERSION=1

# The fragments' files, in the recipe's order.
fragment_files() {
    for fragment in $FRAGMENTS; do
        [ -e "$here/$fragment.config" ] || fail "kernel $name: no fragment $here/$fragment.config"
        printf '%s\n' "$here/$fragment.config"
    done
}

# What tells one state of the operator's tree from another, in a second: sizes and times.
tree_digest() {
    (cd "$1" && find . -name .git -prune -o -type f -printf '%P %s %T@\n' | sort) | digest
}

# What a configuration depends on: these scripts, recipe, fragments, whitelist, source, compiler.
source_key() {
    files=$(fragment_files) || exit 1
    {
        # shellcheck disable=SC2086
        cat "$here/source.sh" "$here/fragments.awk" "$here/$name/recipe" $files
        if [ -e "$here/$name/whitelist" ]; then cat "$here/$name/whitelist"; fi
        if [ -n "${KERNEL_TREE:-}" ]; then realpath "$KERNEL_TREE" && tree_digest "$KERNEL_TREE"; fi
        gcc --version 2>/dev/null | head -n 1
    } | digest
}

# $tree becomes the folder of the sources: the operator's, or the package's in the cache.
open_source() {
    if [ -n "${KERNEL_TREE:-}" ]; then
        tree=$(realpath "$KERNEL_TREE")
        [ -e "$tree/Kconfig" ] || fail "KERNEL_TREE=$KERNEL_TREE holds no kernel's sources (no Kconfig)"
        if [ -e "$tree/.config" ] || [ -d "$tree/include/config" ]; then
            fail "KERNEL_TREE=$KERNEL_TREE has been built in, and nothing is written into it from here: run make mrproper in it, or name a fresh git worktree"
        fi
        printf 'tree=%s\n' "$tree" >"$work/packages"
    else
        unpack_source
    fi
    KBUILD_BUILD_TIMESTAMP=$(date -u -r "$tree/Makefile")
    export KBUILD_BUILD_TIMESTAMP
}

unpack_source() {
    archive_open "$SUITE"
    archive_update
    archive_require "$PACKAGE" >"$work/packages"
    tree=$(cache_dir)/kernel-sources/$(tr '=' '_' <"$work/packages")
    mkdir -p "$(cache_dir)/locks"
    exec 8>"$(cache_dir)/locks/kernel-sources"
    wait_for_lock 8 kernel-sources
    if [ ! -d "$tree" ]; then
        say "fetching and unpacking $(cat "$work/packages"), 140 MB"
        archive_unpack "$work/x" "$(cat "$work/packages")"
        mkdir -p "$work/source" "$(dirname "$tree")"
        tar -C "$work/source" --strip-components=1 -xf "$work/x/usr/src/$PACKAGE.tar.xz" ||
            fail "cannot unpack the sources of $PACKAGE: see above"
        mv -T "$work/source" "$tree"
    fi
    exec 8>&-
    archive_close
}

# kernel_make ARGUMENTS...: make in the sources, with all that it writes in $objects.
# The words given to our own make, KERNEL=… among them, are not for the kernel's.
kernel_make() {
    env -u MAKEFLAGS -u MFLAGS -u MAKEOVERRIDES -u MAKELEVEL \
        nice make -s -C "$tree" O="$objects" LOCALVERSION="-$name" "$@"
}

# $objects/.config from the fragments; everything that they don't name has the kernel's default.
configure() {
    mkdir -p "$objects"
    files=$(fragment_files) || exit 1
    # shellcheck disable=SC2086
    awk -v mode=merge -f "$here/fragments.awk" $files >"$objects/fragments.merged"
    cp "$objects/.config" "$objects/.config.before" 2>/dev/null || :
    # It warns of what two fragments say; check_config does that, and better.
    kernel_make KCONFIG_ALLCONFIG="$objects/fragments.merged" alldefconfig >"$objects/configure.log" 2>&1 || {
        cat "$objects/configure.log" >&2
        fail "kernel $name: the kernel's build system refuses the configuration: see above"
    }
    # An unchanged configuration keeps its time, and with it everything that was built from it.
    cmp -s "$objects/.config" "$objects/.config.before" && mv "$objects/.config.before" "$objects/.config"
    rm -f "$objects/.config.before"
}

# Every line of every fragment holds in $objects/.config, or the whitelist says why not. One line on stdout.
check_config() {
    whitelist=$here/$name/whitelist
    [ -e "$whitelist" ] || whitelist=
    files=$(fragment_files) || exit 1
    # shellcheck disable=SC2086
    awk -v mode=check -v final="$objects/.config" -v whitelist="$whitelist" -f "$here/fragments.awk" \
        "$objects/.config" ${whitelist:+"$whitelist"} $files
}

# Everything that is compiled, in $objects.
compile() {
    say "$name: compiling in $objects with $(nproc) processes at a time; the first time it takes a while"
    began=$(date +%s)
    kernel_make -j"$(nproc)" bzImage modules >"$objects/compile.log" 2>&1 || {
        tail -40 "$objects/compile.log" >&2
        fail "kernel $name does not compile: see above, all of it in $objects/compile.log"
    }
    say "$name: compiled in $(($(date +%s) - began)) s"
}

# assemble_compiled DIR: DIR as the data directory wants a kernel, but for its firmware.
assemble_compiled() {
    release=$(kernel_make kernelrelease)
    mkdir -p "$1"
    printf '%s\n' "$release" >"$1/release"
    cp "$objects/arch/x86/boot/bzImage" "$1/vmlinuz"
    cp "$objects/.config" "$1/config"
    cp "$objects/System.map" "$1/System.map"
    kernel_make INSTALL_MOD_PATH="$work/m" INSTALL_MOD_STRIP=1 DEPMOD=true modules_install >"$work/install.log" 2>&1 || {
        cat "$work/install.log" >&2
        fail "kernel $name: its modules cannot be installed: see above"
    }
    rm -f "$work/m/lib/modules/$release/build" "$work/m/lib/modules/$release/source"
    depmod -b "$work/m" "$release"
    mv "$work/m/lib/modules/$release" "$1/modules"
    copy_headers "$1/headers"
    prove_headers "$1/headers"
}

# copy_headers DIR: what `make -C DIR M=…` needs to compile an out-of-tree module for this very build: the kernel's
# makefiles, scripts and headers, the compiled ones among them, and the checksums of its symbols.
copy_headers() {
    mkdir -p "$1"
    (cd "$tree" && {
        find . arch/x86 -maxdepth 1 -name 'Makefile*' -o -maxdepth 1 -name Kbuild -o -maxdepth 1 -name Kconfig
        find include scripts -type f -o -type l
        find arch/x86 -name Kbuild.platforms -o -name Platform
        find arch/x86 -type d \( -name include -o -name scripts \) -exec find {} -type f \;
        find tools/include tools/objtool -name '*.h'
    }) | sort -u >"$work/headers.source"
    (cd "$objects" && {
        echo .config
        echo Module.symvers
        echo tools/objtool/objtool
        find arch/x86/include include scripts -type f ! -name '*.o' ! -name '.*.cmd'
    }) | sort -u >"$work/headers.built"
    tar -c -C "$tree" -T "$work/headers.source" -f - | tar -x -C "$1" -f -
    tar -c -C "$objects" -T "$work/headers.built" -f - | tar -x -C "$1" -f -
}

# prove_headers DIR: an out-of-tree module is compiled with them, and fits this kernel: its symbols are known, and
# its version is the kernel's.
prove_headers() {
    mkdir "$work/proof"
    cp "$here/proof.c" "$work/proof/proof.c"
    echo 'obj-m := proof.o' >"$work/proof/Makefile"
    env -u MAKEFLAGS -u MFLAGS -u MAKEOVERRIDES -u MAKELEVEL KBUILD_MODPOST_WARN= \
        make -s -C "$1" M="$work/proof" modules >"$work/proof/log" 2>&1 || {
        cat "$work/proof/log" >&2
        fail "kernel $name: no module can be compiled with $1: see above"
    }
    found=$(modinfo -F vermagic "$work/proof/proof.ko")
    [ "${found%% *}" = "$release" ] || fail "kernel $name: a module compiled with its headers is for \"$found\", not for $release"
}
