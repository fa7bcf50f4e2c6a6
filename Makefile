# SPDX-License-Identifier: GPL-2.0
# The user's commands. The module's own makefile is Kbuild.

# `make KDIR=...` builds the module against a prepared kernel tree, like any external
# module; everything else makes its own set-up.
ifdef KDIR
modules:
	$(MAKE) -C $(KDIR) M=$(CURDIR) $(if $(MO),MO=$(abspath $(MO))) modules

install:
	$(MAKE) -C $(KDIR) M=$(CURDIR) $(if $(MO),MO=$(abspath $(MO))) modules_install
else
help:

modules:
	@scripts/modules.sh debian

install:
	@echo "dm-drr: install needs a kernel tree : run make KDIR=... install" >&2; exit 1
endif

# PARTS="read storm" takes only these; KERNEL=debian ROUNDS=5. PARTS=tensorflow is taken only if named, and alone;
# TENSORFLOWS=8 containers
bench:
	@KERNEL=$(KERNEL) ROUNDS=$(ROUNDS) TENSORFLOWS=$(TENSORFLOWS) scripts/bench.sh $(PARTS)

# KIND=short: only reads, and no profiles
counted:
	@scripts/counted.sh $(KIND)

# WITH=COMMIT, PAIRS=20
compare:
	@scripts/compare.sh "$(WITH)" $(PAIRS)

demo:
	@scripts/demo.sh

# SUITES="kunit reads" runs only these, "all" every suite, "torture-long" for TIME=600;
# KERNEL=debug in a guest with run-time checkers, KERNEL=amd64 on another flavour of Debian's kernel;
# PROVIDER=patched with a patched dm-thin-pool in place of Debian's own
test:
	@KERNEL=$(KERNEL) scripts/test.sh $(SUITES)

test-all:
	@KERNEL=$(KERNEL) scripts/test.sh all

# all kernel series, with both providers; SUITES="reads writes" runs only these
test-series:
	@scripts/test-series.sh $(SUITES)

kunit:
	@scripts/kunit.sh

# PARTS="tests" or "models" for one of them
host-test:
	@scripts/host.sh $(PARTS)

# TARGETS="table_line access_table" takes only these; TIME= is seconds for each
fuzz:
	@TIME=$(TIME) scripts/fuzz.sh $(TARGETS)

check:
	@scripts/check.sh

# RULES="Proof Kept" takes only these
mutants:
	@scripts/mutants.sh $(RULES)

# TIME=600 SEED=1 KERNEL=debian
torture:
	@scripts/torture.sh

# N=5 SEED=1 DRR=none KERNEL=debian
powercut:
	@DRR=$(DRR) KERNEL=$(KERNEL) SEED=$(SEED) scripts/powercut.sh $(N)

model:
	@scripts/model.sh

# every unsafe of the kernel code with its reason
unsafe:
	@scripts/unsafe.sh --list

# every sum, shift and cast of the kernel code, with the reason why it can't overflow
arithmetic:
	@scripts/arithmetic.sh --list

# the command line tool, into build/drrctl
drrctl:
	@scripts/drrctl.sh

# PREFIX=/usr/local DESTDIR=
install-drrctl:
	@PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) scripts/drrctl.sh install

# Debian packages, into build/deb
deb:
	@scripts/deb.sh

# S=7.4: does what a machine can for another kernel series; KEEP=1 QUICK=1
new-series:
	@KEEP=$(KEEP) QUICK=$(QUICK) scripts/new-series.sh "$(S)"

# installs them in a Debian root, boots it, purges them
deb-test:
	@scripts/deb-test.sh

# containerd, Docker, LVM and QEMU, as Debian has them; SUITES=lvm for one of them
managers-test:
	@scripts/managers.sh $(SUITES)

toolbox:
	@scripts/toolbox.sh --path

kernels:
	@scripts/kernel.sh debian
	@scripts/kernel.sh uml

clean:
	rm -rf build
	find . -name .git -prune -o \( -name '*.o' -o -name '*.ko' -o -name '*.mod' \
		-o -name '*.mod.c' -o -name '.*.cmd' -o -name '*.rmeta' -o -name .module-common.o \
		-o -name Module.symvers -o -name modules.order \) -type f -exec rm {} +
	rm -f rust/bindings_generated.rs

define HELP
make demo      containers read, and are launched, with DRR and without
make test      the tests that CI runs; SUITES="kunit reads" for some suites; KERNEL=debug or
               kcsan for guests with KASAN, lockdep, kmemleak... or the data race detector;
               KERNEL=amd64 for another flavour of Debian's kernel, arm64 for that of arm64;
               PROVIDER=patched for a patched dm-thin-pool in place of Debian's own with thin/;
               DRR_KERNEL=7.2 on another series of kernels
make test-all  every suite, those that take long, too
make test-series  the same tests on each series of scripts/versions.conf, with both
               providers; SUITES="reads writes"
make kunit     unit tests of the pure parts, under User-mode Linux
make host-test the pure parts in user space: loom's models, many threads, odd input
make fuzz      fuzz the parsers and the table in user space; TIME=60
make check     rustfmt, clippy, checkpatch, rustdoc, shellcheck, what documents tell to type
make mutants   switch the rules off one by one, and see the tests notice
make model     the models of Documentation/formal, with SPIN
make unsafe    every unsafe of the kernel code, with its reason
make arithmetic  every sum, shift and cast that could overflow, with its reason
make torture   load siblings and check every byte they read; TIME=600 SEED=1
               KERNEL=debian, uml, debug or arm64
make bench     measure DRR against dm-thin and the limits of both, under User-mode Linux;
               KERNEL=debian ROUNDS=5 PARTS="read storm"; PARTS=tensorflow launches containers
               with TensorFlow
make counted   count the instructions that reads and writes take, with DRR and without
make compare   time hits and misses against another commit's module, in turn; WITH=COMMIT
make powercut  cut the power of a guest under load, N=5 times, and look what is lost

make modules   build both modules for Debian's kernel, into build/debian; DRR_KERNEL=7.2 for
               another series, into build/debian-7.2
make drrctl    build the command line tool, its man pages and completions, into
               build/drrctl; make install-drrctl installs them: PREFIX=/usr/local DESTDIR=
make deb       Debian packages dm-drr-dkms and drrctl, into build/deb
make deb-test  install them in a Debian root, use them in a guest, purge them
make managers-test  DRR under containerd, Docker, LVM and QEMU, in a guest; SUITES=lvm
make new-series  try another series of kernels and report what doesn't work; S=7.4 KEEP=1
make toolbox   only the root with the compilers
make kernels   only the kernel trees
make KDIR=...  build dm-drr.ko against a prepared kernel tree; also: install, MO=...
make clean     remove what was built in the checkout

As root, on Debian 12 or 13, x86-64. What takes long to build is kept in
$${DRR_CACHE:-~/.cache/dm-drr}; remove that folder to start afresh.
scripts/toolbox.sh bash is a shell with all the compilers, scripts/vm.sh a guest.
endef
export HELP

help:
	@echo "$$HELP"

.PHONY: modules install drrctl install-drrctl deb deb-test managers-test bench demo test test-all test-series kunit host-test fuzz check model mutants torture powercut new-series unsafe arithmetic toolbox kernels clean help
