#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Checks the sources with the kernel's own tools. One line for each check, what a
# failed one says below it, and at last "N passed, N failed".

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

scripts=$DRR_TOP/scripts
build=$DRR_TOP/build/check
passed=0 failed=0

toolbox() {
	nice "$scripts/toolbox.sh" -- "$@"
}

# Files of the checkout that match the patterns: what git knows, or would add. A * stands for
# folders, too: 'rust/*.rs' are all in and below rust/.
files() {
	if [[ -e .git ]]; then
		toolbox git -c safe.directory='*' ls-files --cached --others --exclude-standard -- "$@"
	else
		find . -path ./build -prune -o -type f -printf '%P\n' |
			while read -r file; do
				# shellcheck disable=SC2053 # patterns, as git takes them
				for pattern in "${@:-*}"; do
					[[ $file != $pattern ]] || echo "$file"
				done
			done
	fi | sort -u | while read -r file; do
		[[ ! -f $file ]] || echo "$file"
	done
}

# The patches, in their order: the series, then those of subfolders, which go on top of it.
patches() {
	find -H "$scripts/patches/$DRR_KERNEL" -name '*.patch' | LC_ALL=C sort
}

# $1: name, rest: function
check() {
	local name=$1 start=$SECONDS
	shift
	set +e	# not "if": that would switch off set -e inside
	( set -e; "$@" ) >"$build/$name.log" 2>&1 </dev/null
	local rc=$?
	set -e
	if [[ $rc = 0 ]]; then
		printf 'PASS %-12s %3d s\n' "$name" $((SECONDS - start))
		((++passed))
	else
		printf 'FAIL %-12s %3d s  %s\n' "$name" $((SECONDS - start)) "$build/$name.log"
		tail -n 30 "$build/$name.log" | sed 's/^/  | /'
		((++failed))
	fi
}

# --- the checks ---

check_rustfmt() {
	local rust
	mapfile -t rust < <(files '*.rs')
	toolbox rustfmt --check --edition 2021 --config-path "$source/.rustfmt.toml" "${rust[@]}"
}

# Every warning is an error; built from scratch, or old warnings would not show. With the
# command for custom kernels, so that this is known to work.
check_clippy() {
	rm -rf "$build/clippy"
	mkdir -p "$build/clippy"
	toolbox make KDIR="$kdir" MO="$build/clippy" -j"$(nproc)" \
		SAMPLES=1 CLIPPY=1 KRUSTFLAGS=-Dwarnings
}

# clippy wants a reason for each; this counts them, and keeps them where they belong.
# Unsafe in the wrong places of a small tree, in subfolders, has to be refused.
check_unsafe() {
	local tree=$build/unsafe said line
	"$scripts/unsafe.sh"
	rm -rf "$tree"
	mkdir -p "$tree"/{scripts,rust/sub,drr/sub}
	cp scripts/{lib.sh,versions.conf,unsafe.sh} "$tree/scripts/"
	cp drr/drr.rs "$tree/drr/"
	echo 'fn x() { unsafe { y() } }' | tee "$tree/rust/sub/x.rs" >"$tree/drr/sub/y.rs"
	! said=$("$tree/scripts/unsafe.sh") || { echo "bad unsafe is not refused"; return 1; }
	for line in "rust/sub/x.rs:1: unsafe block without a reason" "drr/sub/y.rs: unsafe"; do
		grep -qxF "$line" <<<"$said" || { echo "not said: $line"; return 1; }
	done
}

# arithmetic.sh has to refuse each seed, also where a reason stands at another statement or function, but nothing
# that has a reason or only looks like arithmetic.
check_arithmetic() {
	local copy=$build/seeded.rs seeds seed line said
	"$scripts/arithmetic.sh"
	cat drr/io/copy.rs - >"$copy" <<-'END'
		// RANGE: another function's
		fn with_reasons<T: Copy + Send>(a: &[u32; 2], _: &dyn Fn() -> T, _: impl Send + 'static) -> u64 {
		    let _ = "'// RANGE: in a string"; /* a + b */
		    let from = -1 + *a;
		    // CAST: a reason
		    1 << 4 | (a[0] as u64).wrapping_add(from)
		}
	END
	"$scripts/arithmetic.sh" "$copy"
	seeds=("a + 1" "a << b" "b as u32" "a - (b)" "x[a] * 2" "*y -= 1" "a >> b" "1 << a.ilog2()"
		"a % 8 - 1" "a.0 + 1" "1 + 8 / a" "f(8) - 1" "-1 - a" "unsafe { a } + 1" "if b { a - 1 }"
		"a /* RANGE */ + 1" '"RANGE:".len() + a')
	for seed in "${seeds[@]}"; do
		{
			cat drr/io/copy.rs
			printf '%s\n' '' '// RANGE: one that is another function'"'"'s' 'fn another() {}' \
				'fn seeded() {' '    // RANGE: one that is another statement'"'"'s' '    f();' "    $seed;" '}'
		} >"$copy"
		! said=$("$scripts/arithmetic.sh" "$copy") || { echo "not refused: $seed"; return 1; }
		line=$(($(wc -l <"$copy") - 1))
		# this one, and the counts
		[[ $said = "$copy:$line: "*" without a reason: "*$'\n'*", 1 without" ]] || {
			echo "not said of $seed: line $line"
			echo "$said"
			return 1
		}
	done
}

check_checkpatch() {
	local sources events series
	mapfile -t sources < <(files '*.[ch]' | grep -v '^include/trace/')
	mapfile -t events < <(files 'include/trace/*.h')
	mapfile -t series < <(patches)
	# a series of its own doesn't touch MAINTAINERS
	toolbox "$source/scripts/checkpatch.pl" --root="$source" --strict --no-summary \
		--ignore FILE_PATH_CHANGES "${series[@]}"
	toolbox "$source/scripts/checkpatch.pl" --root="$source" --strict --no-summary \
		--file "${sources[@]}"
	# tracepoints are written in a style of their own
	toolbox "$source/scripts/checkpatch.pl" --root="$source" --strict --no-summary \
		--ignore OPEN_ENDED_LINE,PARENTHESIS_ALIGNMENT --file "${events[@]}"
}

# The patches apply to the kernel's source as mails do. A repository of the touched files will do.
check_patches() {
	local repo=$build/patches file series
	mapfile -t series < <(patches)
	rm -rf "$repo"
	mkdir -p "$repo"
	sed -n 's,^--- a/,,p' "${series[@]}" | sort -u | while read -r file; do
		[[ ! -e $source/$file ]] || install -D -m 644 "$source/$file" "$repo/$file"
	done
	# shellcheck disable=SC2016 # expanded by the inner shell
	toolbox bash -euc '
		export GIT_{AUTHOR,COMMITTER}_{NAME,EMAIL}=check GIT_CONFIG_GLOBAL=/dev/null
		cd "$1"
		shift
		git init -q .
		git add .
		git commit -qm source
		git am "$@"
	' - "$repo" "${series[@]}"
}

# Kbuild and versions.conf have the same series, each with patches, and Kbuild refuses others.
check_series() {
	local kernel said want known bad=0
	known=$(printf '%s\n' "${KERNEL_SERIES[@]}" | sort -V | tr '\n' ' ')
	[[ $(sed -n 's/^drr_series := //p' Kbuild) = "${known% }" ]] || { echo "Kbuild: drr_series isn't $known"; bad=1; }
	for kernel in "${KERNEL_SERIES[@]}"; do
		compgen -G "$scripts/patches/$kernel/*.patch" >/dev/null || { echo "no patches for $kernel"; bad=1; }
	done
	while read -r kernel want; do
		said=$(make -f Kbuild src=. obj=. VERSION="${kernel%.*}" PATCHLEVEL="${kernel#*.}" -n 2>&1) || true
		[[ $said = *"dm-drr: kernel $kernel $want"* ]] || { echo "$kernel isn't refused: $said"; bad=1; }
	done <<-'END'
		6.18 is too old
		7.1 is too old
		99.0 isn't tested
	END
	for kernel in "${KERNEL_SERIES[@]}" "99.0 ANY_SERIES=1"; do
		# shellcheck disable=SC2086 # words
		said=$(make -f Kbuild src=. obj=. VERSION="${kernel%%.*}" PATCHLEVEL=${kernel#*.} -n 2>&1) || true
		[[ $said != *"dm-drr: "* ]] || { echo "$kernel is refused: $said"; bad=1; }
	done
	return $bad
}

# Both crates, private items too, with the flags that the module is built with.
check_rustdoc() {
	local object command built out=$build/rustdoc
	# private items are documented, so links to them lead somewhere
	local allowed=-Arustdoc::private_intra_doc_links
	rm -rf "$out"
	mkdir -p "$out"
	built=$("$scripts/modules.sh" debian)
	for object in rust/dm drr/drr; do
		# the saved command is: VARIABLES rustc FLAGS FILE; ...
		command=$(sed -n 's/^savedcmd_[^ ]* := //p' \
			"$built/drr/${object%/*}/.${object#*/}.o.cmd" |
			sed -e 's/;.*//' -e 's/ rustc / rustdoc /' -e 's/ --emit=[^ ]*//g' \
			-e 's/ --out-dir [^ ]*//' -e 's/ --remap-path-[a-z]*=[^ ]*//g' -e 's/ -o [^ ]*//')
		[[ $command = *" rustdoc "* ]] || { echo "no rustc command for $object"; return 1; }
		# shellcheck disable=SC2016 # expanded by the inner shell
		RUSTC_BOOTSTRAP=1 DM_BINDINGS=$built/drr/rust/bindings_generated.rs \
			toolbox bash -euc 'cd "$1"; eval "$2"' - "$kdir" \
			"$command --output $out --document-private-items -Dwarnings $allowed"
	done
}

# Programs by their first line, and what they source by the line that tells shellcheck its language.
check_shellcheck() {
	local shell
	mapfile -t shell < <(files | while read -r file; do
		! head -n 5 "$file" | grep -qaE '^(#!/bin/(ba)?sh|# shellcheck shell=)' || echo "$file"
	done)
	toolbox shellcheck -x -P SCRIPTDIR -P "$DRR_TOP" "${shell[@]}"
}

# Every source says in its first lines which license it has.
check_spdx() {
	local file bad=0
	while read -r file; do
		head -n 3 "$file" | grep -q 'SPDX-License-Identifier: GPL-2.0' || {
			echo "no SPDX line: $file"
			bad=1
		}
	done < <(files | grep -vE '\.(patch|md|rst|svg|json|txt|lock)$|^COPYING$')
	return $bad
}

# Crates that programs are linked with may be had on terms that go with GPL-2.0, which Apache-2.0
# alone doesn't.
check_crates() {
	local ok='^(MIT|BSD-[23]-Clause|0BSD|ISC|Zlib|Unlicense|CC0-1.0|BSL-1.0|MPL-2.0|Unicode-3.0|GPL-2.0)$'
	"$scripts/cargo.sh" tree --locked --workspace --target all -e normal --prefix none --no-dedupe \
		--format '{p}|{l}' | sort -u | awk -F '|' -v ok="$ok" 'NF > 1 {
			good = 1
			terms = split($2, term, / AND /)
			for (t = 1; t <= terms; t++) {
				gsub(/[()]/, "", term[t])
				choices = split(term[t], choice, / OR | *\/ */)
				for (any = 0; choices; choices--)
					any += choice[choices] ~ ok
				good = good && any
			}
			if (!good || !terms) {
				print $1 ": license \"" $2 "\" : use another crate"
				bad = 1
			}
		} END { exit bad }'
}

# What documents tell to type in a checkout is there: targets and scripts, without running them, and
# files that are linked. The suite documents runs the rest. With KDIR= clippy is run above.
check_documents() {
	local documents file command link bad=0
	mapfile -t documents < <(files '*.md' '*.rst')
	while IFS=$'\t' read -r file command; do
		case $command in
		*KDIR=*) continue ;;
		"make "*) bash -c "make -n ${command#make }" >/dev/null && continue ;;
		scripts/*) [[ -x ${command%% *} ]] && continue ;;
		*) continue ;;
		esac
		echo "$file: $command"
		bad=1
	done < <(awk -f tools/testing/commands.awk "${documents[@]}")
	while IFS=: read -r file link; do
		link=${link#](}
		[[ -e $(dirname "$file")/${link%)} ]] || {
			echo "$file: no file ${link%)}"
			bad=1
		}
	done < <(grep -oHE '\]\([^):#]+\)' "${documents[@]}")
	return $bad
}

# design.rst names each source but the roots of crates and folders, which say what is in them; and what a document
# names is there.
check_modules() {
	local file name documents bad=0
	mapfile -t documents < <(files '*.md' '*.rst')
	while read -r file; do
		case $file in
		rust/dm.rs | drr/drr.rs)
			while read -r name; do
				grep -qE "^//! .*\[\`(mod@)?$name\`\]" "$file" || { echo "$file: says nothing of $name"; bad=1; }
			done < <(sed -nE 's/^(pub )?mod (.*);$/\2/p' "$file" | grep -v '^bindings$')
			continue
			;;
		esac
		if [[ -d ${file%.rs} && $file != rust/target.rs ]]; then
			grep -q '^//! ' "$file" || { echo "$file: says nothing of its folder"; bad=1; }
		elif ! grep -qF "\`\`$file\`\`" Documentation/design.rst; then
			echo "Documentation/design.rst: $file is missing"
			bad=1
		fi
	done < <(files 'rust/*.rs' 'drr/*.rs')
	while IFS=: read -r file name; do
		[[ -e $name ]] || { echo "$file: no file $name"; bad=1; }
	done < <(grep -oE '(^|[^/a-z])(rust|drr)/[a-z_/]+\.(rs|c)\b' "${documents[@]}" | sed -E 's/:[^rd]/:/')
	return $bad
}

cd "$DRR_TOP"
need_root
source=$("$scripts/kernel.sh" source)
kdir=$("$scripts/kernel.sh" debian)
mkdir -p "$build"
for name in rustfmt clippy unsafe arithmetic checkpatch patches series rustdoc shellcheck spdx crates \
	documents modules; do
	check "$name" "check_$name"
done
echo "$passed passed, $failed failed"
((!failed))
