// SPDX-License-Identifier: GPL-2.0
/*
 * Reads or writes a file in one way, and prints how many nanoseconds it took: where the clock
 * counts instructions, how many of these. What a program needs to start isn't in it.
 *
 * usage: bench-io read|write FILE MIB		in order, 1 MiB at a time
 *        bench-io randread|randwrite FILE MIB	4 KiB at a time, each page once, in random order
 *   BENCH_IO_DIRECT in the environment: with O_DIRECT; writes always are
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MIB 1048576L
#define PAGE 4096L

static uint64_t now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * UINT64_C(1000000000) + at.tv_nsec;
}

/* The first `wanted` of all pages of the file, in random order; the same in each run. */
static long *shuffled(long pages, long wanted)
{
	long *order = calloc(pages, sizeof(*order));
	uint64_t random = 1;
	long i;

	if (!order)
		err(1, "order of %ld pages", pages);
	for (i = 0; i < pages; i++)
		order[i] = i;
	for (i = 0; i < wanted; i++) {
		long with, tmp;

		random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		with = i + (random >> 33) % (pages - i);
		tmp = order[i];
		order[i] = order[with];
		order[with] = tmp;
	}
	return order;
}

int main(int argc, char **argv)
{
	bool random, writes, direct = getenv("BENCH_IO_DIRECT");
	long bytes, step, done, count, *order = NULL;
	uint64_t begin;
	void *memory;
	int fd;

	if (argc != 4)
		errx(2, "usage: bench-io read|write|randread|randwrite FILE MIB");
	random = !strncmp(argv[1], "rand", 4);
	writes = strstr(argv[1], "write");
	bytes = atol(argv[3]) * MIB;
	step = random ? PAGE : MIB;
	count = bytes / step;
	fd = open(argv[2], (writes ? O_RDWR : O_RDONLY) | (direct || writes ? O_DIRECT : 0));
	if (fd < 0)
		err(1, "%s", argv[2]);
	if (random) {
		order = shuffled(lseek(fd, 0, SEEK_END) / PAGE, count);
		posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	}
	if (posix_memalign(&memory, MIB, MIB))
		errx(1, "no memory");
	memset(memory, 0x5a, MIB);

	begin = now();
	for (done = 0; done < count; done++) {
		long at = (order ? order[done] : done) * step;
		ssize_t moved = writes ? pwrite(fd, memory, step, at) : pread(fd, memory, step, at);

		if (moved < 0)
			err(1, "%s at %ld", argv[2], at);
		if (moved != step)
			errx(1, "%s at %ld: %zd bytes, not %ld", argv[2], at, moved, step);
	}
	printf("%lu\n", now() - begin);
	return 0;
}
