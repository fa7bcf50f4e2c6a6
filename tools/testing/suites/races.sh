#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The donor's pages change while a sibling's read is being served from them: for each
# operation many small files, one racing pair of threads a file. `a` is the donor, `b`
# the receiver. What b reads must always be the base image's data.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

FILES=12
OPERATIONS=(truncate downup punch zero collapse write store direct drop)

# race OPERATION
race() {
	local before hits
	before=$(stat_of a recorded_sectors)
	cat "/mnt/a/$1/"[0-9]* >/dev/null
	expect_drr "pages that a can donate" $((($(stat_of a recorded_sectors) - before) / 8)) \
		$((FILES * 64 - 30))..
	hits=$(stat_of b hits)
	"$HELPER" race "$1" "/mnt/a/$1" "/mnt/b/$1" "$REF/$1" $FILES 1500 ||
		flunk "b saw what a did"
	say "$(($(stat_of b hits) - hits)) hits"
}

# The races above are only about large folios if the donor has some.
large_folios() {
	local count
	cat /mnt/a/big >/dev/null
	count=$("$HELPER" large-folios /mnt/a/big)
	expect "pages of a cached file in large folios" "$count" 1..
}

# Everything a container does at once, on both, with the caches dropped now and then.
mixed_load() {
	local i pid
	(
		for ((i = 0; i < 3; i++)); do
			cp "$REF/big" "/mnt/a/new$i"
			rm -f "/mnt/a/new$((i - 1))"
			cp "/mnt/b/big" "/mnt/b/copy$i"
			cmp "/mnt/b/copy$i" "$REF/big"
			echo 1 >/proc/sys/vm/drop_caches
		done
	) &
	pid=$!
	while [ -d /proc/$pid ]; do
		evict /mnt/b/big
		same /mnt/b/big "$REF/big"
		evict /mnt/a/big
		same /mnt/a/big "$REF/big"
	done
	wait $pid || flunk "the writing side failed"
}

random_file big 4M
for op in "${OPERATIONS[@]}"; do
	for ((i = 0; i < FILES; i++)); do
		random_file "$op/$i" 256K
	done
done

for fs in ext4 xfs; do
	pool_up 512
	image_new $fs base 320
	container_up $fs a base paranoid
	container_up $fs b base paranoid
	run_case "$fs: donors have large folios" large_folios
	for op in "${OPERATIONS[@]}"; do
		run_case "$fs: sibling reads during $op" race "$op"
	done
	run_case "$fs: mixed load with dropped caches" mixed_load
	run_case "$fs: nothing is remembered after unmount" all_down
done
finish
