# Bridgehead. `make help` lists the verbs. Everything made goes under build/ and target/; what takes long to
# make is also kept in $BRIDGEHEAD_CACHE (default ~/.cache/bridgehead), keyed by a hash of its recipe, and
# survives a `make clean` and a new clone. REFRESH=1 makes kernel, loaders and root look for newer packages.

# Your own choices, kept: a line KERNEL = kvm-host in config.mk holds for every verb.
-include config.mk

KERNEL ?= debian
ROOT ?= kvm-host
INITRD ?= default
INTERFACE ?=
# Of the initrd: directories of out-of-tree modules, microcode (1: Debian's, or a directory) and for which
# processors, archives to append, the largest image.
MODULES ?=
MICROCODE ?=
PROCESSORS ?=
APPEND ?=
MAX_SIZE ?=
# What to measure (several words: one after the other), and how many rounds.
BENCH ?= initrd
RUNS ?= 5
CARGO ?= cargo

data := build
kernel := $(data)/kernels/$(KERNEL)
from_source := $(if $(shell grep -s '^FRAGMENTS=' kernel-configs/$(KERNEL)/recipe),packages-kernel)
architecture := $(or $(shell sed -n 's/^ARCHITECTURE=//p' kernel-configs/$(KERNEL)/recipe 2>/dev/null),amd64)
builder := $(shell dpkg --print-architecture)
# BusyBox for a kernel of another architecture than this machine's.
busybox := $(if $(filter-out $(builder),$(architecture)),$(data)/busybox/$(architecture))
# What hears LLDP in the initrd, static. For another architecture than this machine's there is one where Rust has that
# target's standard library (`make packages-arm64` gets it by rustup).
ear_target := $(if $(filter arm64,$(filter-out $(builder),$(architecture))),aarch64-unknown-linux-musl)
rust_has = $(wildcard $(shell rustc --print sysroot 2>/dev/null)/lib/rustlib/$(1)/lib)
ear := $(if $(filter $(builder),$(architecture)),$(data)/ear/bridgehead-ear,$(if $(ear_target),$(if \
	$(call rust_has,$(ear_target)),$(data)/ear/$(ear_target)/bridgehead-ear)))
image := $(data)/initrds/$(INITRD).img
bridgehead := target/release/bridgehead
setup := .ci/setup
shell_scripts = $(shell git ls-files --cached --others --exclude-standard | xargs -r grep -lE '^\#!/bin/(ba)?sh|^\# shellcheck shell=')

# Tests and demo make network namespaces and tap devices and bind ports below 1024: root. Everything is
# built as who you are; only the finished test programs run under sudo.
as_root = $(if $(filter 0,$(shell id -u)),,--config "target.'cfg(all())'.runner='sudo -E'")
as_root_note = $(if $(filter 0,$(shell id -u)),:,echo "sudo, because the lab makes network namespaces and tap devices and serves ports below 1024")

export BRIDGEHEAD_BUILD := $(CURDIR)/$(data)
# The kernel that the virtual servers of demo and tests boot.
export BRIDGEHEAD_KERNEL := $(KERNEL)

.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: all install uninstall demo test test-boot fuzz soak bench bench-initrd run initrd kernel root loaders microcode check lint unit-test clean \
	distclean help kernel-check daemon options packages packages-compiler packages-build packages-kernel packages-demo \
	packages-test packages-arm64 packages-bench packages-fuzz busybox ear ear-of-target

all: daemon ## build the daemon (the default)

demo: packages-demo daemon loaders kernel initrd root ## rack two virtual bare servers and boot them into the image pool
	@$(as_root_note)
	$(CARGO) test --release --locked --test demo $(as_root)

test: lint kernel-check unit-test ## everything that must pass, set-up included

test-boot: packages-test packages-demo daemon loaders kernel initrd root ## every boot test, most of an hour
	@$(as_root_note)
	@$(MAKE) --no-print-directory root ROOT=lab-managers
	@$(MAKE) --no-print-directory packages-arm64
	@$(MAKE) --no-print-directory kernel initrd KERNEL=debian-arm64 INITRD=arm64
	$(CARGO) test --locked --test boot $(as_root) -- --include-ignored

bench: $(addprefix bench-,$(BENCH)) ## measure on an idle machine (RUNS=5 rounds): BENCH=initrd beside dracut's (half an hour), or a folder of benches/

bench-initrd: packages-bench daemon loaders kernel initrd root
	@$(as_root_note)
	@$(MAKE) --no-print-directory root ROOT=lab-dracut
	BENCH_RUNS=$(RUNS) $(CARGO) bench --locked --bench initrd $(as_root)

# The others: benches/NAME beside other servers, on the network of benches/rig.
bench-%: packages-bench daemon
	@$(as_root_note)
	BENCH_RUNS=$(RUNS) $(CARGO) bench --locked --bench $* $(as_root)

bench-tftp: peers

# What to fuzz (several words: one after the other), and for how long each.
FUZZ ?= dhcp tftp http inventory nfs leases lldp syslog
SECONDS ?= 1200

fuzz: packages-fuzz ## feed hostile input for SECONDS=1200 each to FUZZ="dhcp tftp http inventory nfs leases lldp syslog"
	@for target in $(FUZZ); do fuzz/run $$target $(SECONDS) || exit 1; done

soak: packages-test ## good and bad traffic for ten minutes; memory and descriptors must come back (SECONDS=600)
	@$(as_root_note)
	SOAK_SECONDS=$(if $(filter file,$(origin SECONDS)),600,$(SECONDS)) $(CARGO) test --release --locked --test soak $(as_root) -- --nocapture

run: interface daemon loaders initrd root ## serve hosts.yaml on a real interface: make run INTERFACE=eno2
	@test "$$(id -u)" = 0 || echo "run: sudo, because DHCP, TFTP and HTTP have ports below 1024" >&2
	$$(test "$$(id -u)" = 0 || echo sudo) $(bridgehead) serve --inventory hosts.yaml --data $(data) --interface $(INTERFACE)

# Asked before anything is built.
.PHONY: interface
interface:
	@test -n "$(INTERFACE)" || { echo "run: which interface? make run INTERFACE=eno2" >&2; exit 2; }

# Builds nothing, so that root needs no compiler.
install: ## put program, unit, manual pages and completions into PREFIX=/usr/local (DESTDIR=), by sudo; starts nothing
	@$(to_prefix) packaging/install $(bridgehead)

uninstall: ## remove what make install put there; inventory and data stay
	@$(to_prefix) packaging/install --remove

PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
to_prefix = $(if $(DESTDIR),,$(if $(filter 0,$(shell id -u)),,sudo)) env PREFIX=$(PREFIX) SYSCONFDIR=$(SYSCONFDIR) DESTDIR=$(DESTDIR)

check: daemon ## check hosts.yaml and everything that it names
	$(bridgehead) check --inventory hosts.yaml --data $(data)

kernel: packages-build $(from_source) ## get or make KERNEL=debian in build/kernels/; kvm-host is made from source (KERNEL_TREE=DIR: yours)
	@kernel-configs/build $(KERNEL) $(kernel)

kernel-check: packages-build packages-kernel ## hold every line of kernel-configs/*.config against the kernel's sources (KERNEL_TREE=DIR: yours)
	@kernel-configs/check

loaders: packages-build ## get the boot loaders into build/loaders/
	@$(setup)/loaders $(data)/loaders

.PHONY: peers
peers: packages-build
	@$(setup)/peers $(data)/peers

microcode: packages-build ## get Debian's microcode into build/microcode/ (for make initrd MICROCODE=1)
	@$(setup)/microcode $(data)/microcode

root: kernel ## build the root image ROOT=kvm-host (LUSTRE_TREE=DIR adds an installed Lustre)
	@roots/build $(ROOT) $(data)/roots/$(ROOT) $(kernel)

initrd: $(image) ## pack the initrd into build/initrds/ (MODULES=DIR MICROCODE=1 PROCESSORS=06-8f-08 APPEND=FILE MAX_SIZE=20M)

initrd_options = $(strip --kernel $(kernel) $(addprefix --inventory ,$(wildcard hosts.yaml)) $(addprefix --modules ,$(MODULES)) \
	$(addprefix --busybox ,$(addsuffix /busybox,$(busybox))) $(addprefix --ear ,$(ear)) \
	$(if $(MICROCODE),--microcode$(addprefix =,$(filter-out 1,$(MICROCODE))) $(addprefix --processor ,$(PROCESSORS))) \
	$(addprefix --append ,$(APPEND)) $(addprefix --max-size ,$(MAX_SIZE)))
# What the image is made of, besides the builder and the kernel; folders, because something may go from one.
initrd_inputs = $(shell find initrd $(MODULES) $(filter-out 1,$(MICROCODE)) 2>/dev/null) \
	$(wildcard hosts.yaml $(APPEND) $(shell awk '/^\// { print $$1 }' initrd/files.list 2>/dev/null)) \
	$(if $(filter 1,$(MICROCODE)),$(data)/microcode/id) $(addsuffix /id,$(busybox))

# Another kernel, or other options, make another image.
$(data)/initrds/.$(INITRD).options: options
	@mkdir -p $(@D)
	@echo '$(initrd_options)' | cmp -s - $@ || echo '$(initrd_options)' >$@
options:

# The inventory says which NICs its hosts have; the builder warns of those that nothing in the image drives.
# What is up to date for the builder is so for make.
$(image): $(initrd_inputs) $(ear) $(data)/initrds/.$(INITRD).options $(bridgehead) $(kernel)/id
	$(bridgehead) initrd build --out $@ $(initrd_options)
	@touch $@

# These two are brought up to date by their verbs; an unchanged file makes nothing else anew.
$(bridgehead): daemon
	@:
$(kernel)/id: kernel
	@:
$(data)/microcode/id: microcode
	@:
$(data)/busybox/%/id: busybox
	@:
busybox: packages-build
	@$(setup)/busybox $(architecture) $(data)/busybox/$(architecture)

# Beside the others' own build: a plain `cargo build` of this program is not static.
$(data)/ear/bridgehead-ear: ear
	@:
ear: packages-compiler
	@$(CARGO) rustc --release --locked --bin bridgehead-ear -- -C target-feature=+crt-static -C relocation-model=static \
		-C opt-level=z -C panic=abort
	@mkdir -p $(data)/ear
	@cmp -s target/release/bridgehead-ear $(data)/ear/bridgehead-ear || cp target/release/bridgehead-ear $(data)/ear/bridgehead-ear

# By itself, and by Rust's own linker: the crate's other dependencies want a C compiler for the target.
$(data)/ear/%/bridgehead-ear: ear-of-target
	@:
ear-of-target: packages-compiler
	@CARGO_TARGET_DIR=target $(CARGO) build --release --locked --manifest-path initrd/ear/Cargo.toml --target $(ear_target) \
		--config 'target.$(ear_target).linker="rust-lld"'
	@mkdir -p $(data)/ear/$(ear_target)
	@cmp -s target/$(ear_target)/release/bridgehead-ear $(data)/ear/$(ear_target)/bridgehead-ear || \
		cp target/$(ear_target)/release/bridgehead-ear $(data)/ear/$(ear_target)/bridgehead-ear

daemon: packages-compiler
	@$(CARGO) build --release --locked --bin bridgehead

lint: packages-test ## format, clippy, shellcheck
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	shellcheck -x $(shell_scripts)

unit-test: packages-test packages-demo daemon loaders kernel initrd root
	@$(as_root_note)
	$(CARGO) test --locked --no-fail-fast $(as_root)
	$(CARGO) test --locked --test boot $(as_root)

packages: packages-compiler packages-build packages-kernel packages-demo packages-test packages-arm64 packages-bench packages-fuzz ## install every Debian package that any verb needs

# With a C compiler of whatever name in place there is nothing to install.
packages-compiler:
	@command -v cc >/dev/null || $(setup)/packages compiler
packages-build:
	@$(setup)/packages build
packages-kernel:
	@$(setup)/packages kernel
packages-demo:
	@$(setup)/packages demo
packages-test: packages-compiler
	@$(setup)/packages test
packages-arm64: packages-demo
	@$(setup)/packages arm64
	@test -n "$(call rust_has,aarch64-unknown-linux-musl)" || ! command -v rustup >/dev/null || rustup target add aarch64-unknown-linux-musl || \
		echo "packages: no Rust standard library for aarch64-unknown-linux-musl: an initrd for arm64 goes without bridgehead-ear" >&2
packages-bench:
	@$(setup)/packages bench
packages-fuzz: packages-compiler
	@$(setup)/packages fuzz

clean: ## remove build/ and target/; the cache stays
	rm -rf $(data) target

distclean: clean ## remove the cache too
	@. $(setup)/lib.sh && VERB=distclean && as_root "remove the root images in $$(cache_dir)" rm -rf "$$(cache_dir)"

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile
