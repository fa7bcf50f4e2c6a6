// SPDX-License-Identifier: GPL-2.0
/*
 * What the guest suites need and no command line tool does.
 *
 *   drr-helper dirty-folio FILE
 *	Reads a part of a file from disk into a large folio that is dirty, overwrites that
 *	part and writes it back. Exit status 1 if the file system made no large folio.
 *
 *   drr-helper forget-extents FILE
 *	Drops ext4's extent status cache of a file.
 *
 *   drr-helper large-folios FILE
 *	Prints how many of a file's cached pages are part of large folios.
 *
 *   drr-helper race OPERATION DONOR_DIR RECEIVER_DIR REFERENCE_DIR COUNT [SPREAD_US]
 *	For each of the files 0 .. COUNT-1: one thread does OPERATION to the donor's file
 *	while another reads the receiver's, which must equal the reference. The start of
 *	each is delayed by a random time below SPREAD_US.
 *
 *   drr-helper short-write FILE OFFSET
 *	Writes a few bytes there from a buffer that ends before they do.
 *
 *   drr-helper rawrace DEVICE REFERENCE SECONDS
 *	One thread writes the device's own data back to it with O_DIRECT, others read and
 *	compare: the content never changes, the blocks behind it do.
 *
 *   drr-helper refused DEVICE REFERENCE SECONDS
 *	The same with other data, which the device must refuse. Prints how often it did.
 *
 *   drr-helper writes FILE COUNT BYTES
 *	Writes so many zeroes COUNT times, one after the other and with O_DIRECT, and prints how
 *	many milliseconds the longest write took.
 *
 *   drr-helper scattered FILE COUNT WHICH BYTES
 *	Writes page WHICH of each piece of so many bytes, of the first COUNT, with O_DIRECT.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul
#define EXT4_IOC_CLEAR_ES_CACHE _IO('f', 40)
#define KPF_COMPOUND_HEAD 15
#define KPF_COMPOUND_TAIL 16

static int open_or_die(const char *path, int flags)
{
	int fd = open(path, flags);

	if (fd < 0)
		err(2, "open %s", path);
	return fd;
}

/* The kernel finds out that the buffer ends only when it copies. */
static int short_write(const char *path, const char *offset)
{
	const size_t half = 100;
	int fd = open_or_die(path, O_WRONLY);
	char *buffer = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (buffer == MAP_FAILED)
		err(2, "mmap");
	memset(buffer, 0x66, PAGE);
	if (mprotect(buffer + PAGE, PAGE, PROT_NONE))
		err(2, "mprotect");
	if (pwrite(fd, buffer + PAGE - half, 2 * half, atol(offset)) < 0)
		err(2, "%s", path);
	return 0;
}

static int writes(const char *path, long count, size_t bytes)
{
	int fd = open_or_die(path, O_WRONLY | O_DIRECT);
	void *buffer = aligned_alloc(PAGE, bytes);
	struct timespec begin, end;
	long at, ms, worst = 0;

	if (!buffer)
		err(2, "%zu bytes", bytes);
	memset(buffer, 0, bytes);
	for (at = 0; at < count; at++) {
		clock_gettime(CLOCK_MONOTONIC, &begin);
		if (pwrite(fd, buffer, bytes, at * bytes) != (ssize_t)bytes)
			err(2, "write number %ld of %s", at, path);
		clock_gettime(CLOCK_MONOTONIC, &end);
		ms = (end.tv_sec - begin.tv_sec) * 1000 + (end.tv_nsec - begin.tv_nsec) / 1000000;
		if (ms > worst)
			worst = ms;
	}
	printf("%ld\n", worst);
	return 0;
}

static int scattered(const char *path, long count, long which, long bytes)
{
	int fd = open_or_die(path, O_WRONLY | O_DIRECT);
	void *buffer = aligned_alloc(PAGE, PAGE);
	long at;

	if (!buffer)
		err(2, "a page");
	memset(buffer, which, PAGE);
	for (at = 0; at < count; at++)
		if (pwrite(fd, buffer, PAGE, at * bytes + which * (long)PAGE) != (ssize_t)PAGE)
			err(2, "piece number %ld of %s", at, path);
	return 0;
}

static size_t size_or_die(int fd, const char *path)
{
	struct stat st;

	if (fstat(fd, &st))
		err(2, "stat %s", path);
	return st.st_size;
}

static char *map_or_die(int fd, size_t len, int prot, const char *path)
{
	char *map = mmap(NULL, len, prot, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		err(2, "mmap %s", path);
	return map;
}

/* Is the page at this address of ours part of a large folio? */
static bool in_large_folio(const char *address)
{
	uint64_t entry = 0, flags = 0;
	int pagemap = open_or_die("/proc/self/pagemap", O_RDONLY);
	int kpageflags = open_or_die("/proc/kpageflags", O_RDONLY);

	/* Mapped by being read; mincore says that it is cached. */
	if (madvise((void *)((uintptr_t)address & ~(uintptr_t)(PAGE - 1)), PAGE,
		    MADV_POPULATE_READ))
		err(2, "populate");
	if (pread(pagemap, &entry, 8, (uintptr_t)address / PAGE * 8) != 8)
		err(2, "pagemap");
	if (pread(kpageflags, &flags, 8, (entry & ((1ull << 55) - 1)) * 8) != 8)
		err(2, "kpageflags");
	close(pagemap);
	close(kpageflags);
	return flags & (1ull << KPF_COMPOUND_HEAD | 1ull << KPF_COMPOUND_TAIL);
}

static int large_folios(const char *path)
{
	int fd = open_or_die(path, O_RDONLY);
	size_t size = size_or_die(fd, path);
	unsigned char *cached = calloc(size / PAGE + 1, 1);
	char *map = map_or_die(fd, size, PROT_READ, path);
	unsigned long large = 0;

	if (mincore(map, size, cached))
		err(2, "mincore %s", path);
	for (size_t page = 0; page * PAGE < size; page++)
		if ((cached[page] & 1) && in_large_folio(map + page * PAGE))
			large++;
	printf("%lu\n", large);
	return 0;
}

/*
 * A write of 64 KiB gets a folio of 64 KiB. Its source ends half-way in memory that isn't
 * there, so only the first half is copied and the second is neither written nor read.
 */
static int dirty_folio(const char *path)
{
	const size_t folio = 64 << 10, half = folio / 2;
	int fd = open_or_die(path, O_RDWR);
	char *source = mmap(NULL, folio, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			    -1, 0);
	char *map = map_or_die(fd, folio, PROT_READ, path);
	char *old = malloc(half);
	bool large;

	memset(source, 0x5a, folio);
	if (munmap(source + half, half))
		err(2, "munmap");
	if (posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM))
		err(2, "fadvise");
	if (pwrite(fd, source, folio, 0) != (ssize_t)half)
		err(2, "write of %zu that can do no more than %zu", folio, half);
	large = in_large_folio(map) && in_large_folio(map + half - PAGE);
	if (pread(fd, old, half, half) != (ssize_t)half)
		err(2, "read into the dirty folio");
	large = large && in_large_folio(map + half);
	if (pwrite(fd, source, half, half) != (ssize_t)half)
		err(2, "overwrite");
	if (fsync(fd))
		err(2, "fsync");
	return large ? 0 : 1;
}

static int forget_extents(const char *path)
{
	if (ioctl(open_or_die(path, O_RDWR), EXT4_IOC_CLEAR_ES_CACHE))
		err(2, "forget extents of %s", path);
	return 0;
}

/* ------------------------------------------------------------------------- race */

struct race {
	const char *operation, *donor_dir, *receiver_dir, *reference_dir;
	int count;
	unsigned int spread_us;
	pthread_barrier_t start, end;
	int wrong;
};

static char *file_in(const char *dir, int nr)
{
	static __thread char path[4096];

	snprintf(path, sizeof(path), "%s/%d", dir, nr);
	return path;
}

static void spin(unsigned int us)
{
	struct timespec now, start;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while ((now.tv_sec - start.tv_sec) * 1000000 +
		 (now.tv_nsec - start.tv_nsec) / 1000 < us);
}

static void change(const char *operation, int fd, const char *path, size_t size,
		   unsigned int *seed)
{
	alignas(PAGE) char page[PAGE];
	off_t at = rand_r(seed) % size;
	int failed = 0;

	memset(page, 0xdd, sizeof(page));
	if (!strcmp(operation, "truncate")) {
		failed = ftruncate(fd, at);
	} else if (!strcmp(operation, "downup")) {
		failed = ftruncate(fd, at) || ftruncate(fd, size);
	} else if (!strcmp(operation, "punch")) {
		failed = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at,
				   rand_r(seed) % (size - at) + 1);
	} else if (!strcmp(operation, "zero")) {
		failed = fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, at,
				   rand_r(seed) % (size - at) + 1);
	} else if (!strcmp(operation, "collapse")) {
		at = at / PAGE * PAGE;
		failed = fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, at < (off_t)(size / 2) ? at : 0,
				   4 * PAGE);
	} else if (!strcmp(operation, "write")) {
		for (off_t pos = 0; !failed && pos < (off_t)size; pos += PAGE)
			failed = pwrite(fd, page, 100, pos) != 100;
		failed = failed || fdatasync(fd);
	} else if (!strcmp(operation, "store")) {
		char *map = map_or_die(fd, size, PROT_READ | PROT_WRITE, path);

		for (size_t pos = 0; pos < size; pos += PAGE)
			memset(map + pos, 0xdd, 100);
		failed = msync(map, size, MS_SYNC) || munmap(map, size);
	} else if (!strcmp(operation, "direct")) {
		int direct = open_or_die(path, O_RDWR | O_DIRECT);

		for (off_t pos = 0; !failed && pos < (off_t)size; pos += 4 * PAGE)
			failed = pwrite(direct, page, PAGE, pos) != (ssize_t)PAGE;
		close(direct);
	} else if (!strcmp(operation, "drop")) {
		failed = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		/* Take the freed pages and fill them with something else. */
		if (!failed) {
			char *fill = mmap(NULL, size, PROT_READ | PROT_WRITE,
					  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

			memset(fill, 0xdd, size);
			munmap(fill, size);
		}
	} else {
		errno = EINVAL;
		failed = -1;
	}
	if (failed)
		err(2, "%s %s", operation, path);
}

static void *changer(void *arg)
{
	struct race *race = arg;
	unsigned int seed = 1;

	for (int nr = 0; nr < race->count; nr++) {
		char *path = file_in(race->donor_dir, nr);
		int fd = open_or_die(path, O_RDWR);
		size_t size = size_or_die(fd, path);

		pthread_barrier_wait(&race->start);
		spin(rand_r(&seed) % race->spread_us);
		change(race->operation, fd, path, size, &seed);
		pthread_barrier_wait(&race->end);
		close(fd);
	}
	return NULL;
}

static void *reader(void *arg)
{
	struct race *race = arg;
	unsigned int seed = 2;

	for (int nr = 0; nr < race->count; nr++) {
		int reference = open_or_die(file_in(race->reference_dir, nr), O_RDONLY);
		size_t size = size_or_die(reference, "reference"), pos = 0;
		char *good = map_or_die(reference, size, PROT_READ, "reference");
		char *path = file_in(race->receiver_dir, nr);
		char *got = malloc(size);
		int fd = open_or_die(path, O_RDONLY);

		pthread_barrier_wait(&race->start);
		spin(rand_r(&seed) % race->spread_us);
		while (pos < size) {
			ssize_t bytes = pread(fd, got + pos, size - pos, pos);

			if (bytes <= 0)
				err(2, "read %s at %zu", path, pos);
			pos += bytes;
		}
		for (pos = 0; pos < size && got[pos] == good[pos]; pos++)
			;
		if (pos < size) {
			printf("%s: byte %zu is %02x, should be %02x\n", path, pos,
			       (unsigned char)got[pos], (unsigned char)good[pos]);
			race->wrong++;
		}
		pthread_barrier_wait(&race->end);
		munmap(good, size);
		free(got);
		close(fd);
		close(reference);
	}
	return NULL;
}

static int run_race(int argc, char **argv)
{
	struct race race = {
		.operation = argv[0], .donor_dir = argv[1], .receiver_dir = argv[2],
		.reference_dir = argv[3], .count = atoi(argv[4]),
		.spread_us = argc > 5 ? atoi(argv[5]) : 1000,
	};
	pthread_t threads[2];

	pthread_barrier_init(&race.start, NULL, 2);
	pthread_barrier_init(&race.end, NULL, 2);
	if (pthread_create(&threads[0], NULL, changer, &race) ||
	    pthread_create(&threads[1], NULL, reader, &race))
		err(2, "threads");
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	return race.wrong ? 1 : 0;
}

/* ---------------------------------------------------------------------- rawrace */

struct rawrace {
	const char *device;
	const char *good;
	size_t size;
	time_t deadline;
	bool refused;
	int wrong;
};

static void *raw_writer(void *arg)
{
	struct rawrace *race = arg;
	int fd = open_or_die(race->device, O_RDWR | O_DIRECT);
	unsigned int seed = 3, count = 0;
	char *buffer;

	if (posix_memalign((void **)&buffer, PAGE, 8 * PAGE))
		err(2, "memory");
	for (; time(NULL) < race->deadline; count++) {
		off_t at = rand_r(&seed) % (race->size / PAGE - 8) * PAGE;

		if (race->refused)
			memset(buffer, count, 8 * PAGE);
		else
			memcpy(buffer, race->good + at, 8 * PAGE);
		if ((pwrite(fd, buffer, 8 * PAGE, at) < 0) != race->refused)
			err(2, "write %s, %s", race->device,
			    race->refused ? "not refused" : "refused");
	}
	if (race->refused)
		printf("%u writes refused\n", count);
	return NULL;
}

static void *raw_reader(void *arg)
{
	struct rawrace *race = arg;
	int fd = open_or_die(race->device, O_RDONLY | O_DIRECT);
	unsigned int seed = (uintptr_t)&arg;
	char *buffer;

	if (posix_memalign((void **)&buffer, PAGE, 32 * PAGE))
		err(2, "memory");
	while (time(NULL) < race->deadline) {
		off_t at = rand_r(&seed) % (race->size / PAGE - 32) * PAGE;

		if (pread(fd, buffer, 32 * PAGE, at) != (ssize_t)(32 * PAGE))
			err(2, "read %s", race->device);
		if (memcmp(buffer, race->good + at, 32 * PAGE)) {
			printf("%s: wrong data within 128 KiB at %lld\n", race->device,
			       (long long)at);
			race->wrong = 1;
		}
	}
	return NULL;
}

static int run_rawrace(char **argv, bool refused)
{
	int reference = open_or_die(argv[1], O_RDONLY);
	struct rawrace race = {
		.device = argv[0],
		.deadline = time(NULL) + atoi(argv[2]),
		.refused = refused,
	};
	pthread_t threads[3];

	race.size = size_or_die(reference, argv[1]);
	race.good = map_or_die(reference, race.size, PROT_READ, argv[1]);
	for (int i = 0; i < 3; i++)
		if (pthread_create(&threads[i], NULL, i ? raw_reader : raw_writer, &race))
			err(2, "threads");
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	return race.wrong;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "dirty-folio"))
		return dirty_folio(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "forget-extents"))
		return forget_extents(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "large-folios"))
		return large_folios(argv[2]);
	if ((argc == 7 || argc == 8) && !strcmp(argv[1], "race"))
		return run_race(argc - 2, argv + 2);
	if (argc == 5 && !strcmp(argv[1], "writes"))
		return writes(argv[2], atol(argv[3]), atol(argv[4]));
	if (argc == 6 && !strcmp(argv[1], "scattered"))
		return scattered(argv[2], atol(argv[3]), atol(argv[4]), atol(argv[5]));
	if (argc == 4 && !strcmp(argv[1], "short-write"))
		return short_write(argv[2], argv[3]);
	if (argc == 5 && !strcmp(argv[1], "rawrace"))
		return run_rawrace(argv + 2, false);
	if (argc == 5 && !strcmp(argv[1], "refused"))
		return run_rawrace(argv + 2, true);
	fprintf(stderr, "drr-helper: unknown command : see the top of drr-helper.c\n");
	return 2;
}
