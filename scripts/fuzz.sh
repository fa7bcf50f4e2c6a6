#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Fuzzes the module's parsers and its table in user space (tools/fuzz), with libFuzzer. Ends
# with the line "N passed, N failed"; an input that fails is kept in build/fuzz/TARGET.
#
# usage: fuzz.sh [TARGET]...	without arguments all; TIME= is seconds for each, 60
#
# The compiler is given the flags that `cargo fuzz run --sanitizer none` gives it, so cargo-fuzz
# need not be installed; with it, `cargo fuzz run --fuzz-dir . -s none TARGET` in tools/fuzz does
# the same.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

time=${TIME:-60}
[[ $time =~ ^[0-9]+$ ]] || die "fuzz.sh: '$time' is no time : say TIME=60"
targets=("$@")
(($#)) || targets=(table_line message run_bits access_table)
for target in "${targets[@]}"; do
	[[ -e $DRR_TOP/tools/fuzz/fuzz_targets/$target.rs ]] ||
		die "fuzz.sh: no fuzz target '$target' : use one of tools/fuzz/fuzz_targets"
done

build=$DRR_TOP/build/fuzz
mkdir -p "$build"
# One codegen unit, or the linker drops the counters' start and stop symbols. The target is
# named so that build scripts are built without the flags.
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing
-Cdebug-assertions"
RUSTFLAGS=${flags//$'\n'/ } "$DRR_TOP/scripts/cargo.sh" build --locked --release \
	--manifest-path "$DRR_TOP/tools/fuzz/Cargo.toml" --target x86_64-unknown-linux-gnu \
	--target-dir "$build/cargo"

passed=0 failed=0
for target in "${targets[@]}"; do
	echo "# fuzz: $target, $time s"
	mkdir -p "$build/$target/corpus"
	if nice "$DRR_TOP/scripts/toolbox.sh" -- \
		"$build/cargo/x86_64-unknown-linux-gnu/release/$target" \
		-max_total_time="$time" -timeout=10 -max_len=4096 -print_final_stats=1 \
		-dict="$DRR_TOP/tools/fuzz/dictionary.txt" \
		-artifact_prefix="$build/$target/" "$build/$target/corpus" \
		>"$build/$target.log" 2>&1; then
		echo "ok - fuzz: $target: $(sed -n 's/^stat::number_of_executed_units: *//p' \
			"$build/$target.log") inputs"
		((++passed))
	else
		echo "not ok - fuzz: $target : see $build/$target.log"
		tail -n 20 "$build/$target.log" | sed 's/^/  | /'
		((++failed))
	fi
done
echo "$passed passed, $failed failed"
((!failed))
