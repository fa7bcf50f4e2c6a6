// SPDX-License-Identifier: GPL-2.0
/*
 * What the suites changed-pages and changed-buffers need and no command line tool does.
 *
 *   drr-pages collapse FILE DEVICE OFFSET REFERENCE HOLES SEED [SECOND_DEVICE]
 *	For each of the first HOLES ranges of 16 KiB of a file of 2 MiB: one thread collapses
 *	the file's folios into a huge one, another punches a hole into that range, and a third
 *	reads the range from the sibling DEVICE, where the file begins at OFFSET, and compares
 *	it with REFERENCE. With SECOND_DEVICE, another sibling, the third thread reads DEVICE
 *	through its page cache, and after a wrong read what SECOND_DEVICE is given is looked
 *	at, too. Exit status 1 after a wrong read.
 *
 *   drr-pages cut-write FILE OFFSET LENGTH PRESENT
 *	Writes LENGTH bytes there from a buffer of which only the first PRESENT bytes exist.
 *
 *   drr-pages grow DIRECTORY BLOCKS
 *	EXT4_IOC_RESIZE_FS: makes a mounted file system that large.
 *
 *   drr-pages map DEVICE
 *	Maps a device, touches each page, prints "mapped", and keeps the mapping until killed.
 *
 *   drr-pages move-extents FILE DONOR FIRST DONOR_FIRST COUNT
 *	EXT4_IOC_MOVE_EXT: exchanges COUNT blocks of FILE, from FIRST on, with DONOR's.
 *
 *   drr-pages page-out MIB
 *	Fills memory with a pattern and has it swapped out, prints "out", and waits for a line
 *	on its standard input. Then it reads all of the memory, which swaps it in, prints "in",
 *	and changes each page. Exit status 1 if what comes back isn't the pattern.
 *
 *   drr-pages poison FILE OFFSET
 *	Injects a memory failure into the cached page at OFFSET. Exit status 77 if the kernel
 *	can't do that.
 *
 *   drr-pages remove-held FILE OFFSET LENGTH
 *	MADV_REMOVE of that range while a pipe holds the page in front of it, so that a large
 *	folio with both can't be split. Prints "removed", and keeps the page until killed.
 *
 *   drr-pages scribble DEVICE OFFSET LENGTH MS
 *	Reads that range with O_DIRECT, and overwrites the buffer MS milliseconds after the read
 *	was sent. Exit status 1 if the disk's data came later than that.
 *
 *   drr-pages swap-boot FILE
 *	EXT4_IOC_SWAP_BOOT: exchanges a file's content with that of the boot loader's inode.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul
#define HUGE (2ul << 20)
#define HOLE (16ul << 10)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_HWPOISON
#define MADV_HWPOISON 100
#endif

struct move_extent {
	uint32_t reserved, donor_fd;
	uint64_t orig_start, donor_start, len, moved_len;
};

#define EXT4_IOC_MOVE_EXT _IOWR('f', 15, struct move_extent)
#define EXT4_IOC_RESIZE_FS _IOW('f', 16, uint64_t)
#define EXT4_IOC_SWAP_BOOT _IO('f', 17)

static int open_or_die(const char *path, int flags)
{
	int fd = open(path, flags);

	if (fd < 0)
		err(2, "open %s", path);
	return fd;
}

static char *map_or_die(int fd, size_t length, const char *path)
{
	char *map = mmap(NULL, length, PROT_READ, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		err(2, "mmap %s", path);
	return map;
}

static char *buffer_or_die(size_t length)
{
	void *buffer;

	errno = posix_memalign(&buffer, PAGE, length);
	if (errno)
		err(2, "memory");
	return buffer;
}

static void touch_or_die(char *map, size_t length, const char *path)
{
	if (madvise(map, length, MADV_POPULATE_READ))
		err(2, "touch %s", path);
}

static void say(const char *word)
{
	puts(word);
	fflush(stdout);
}

/* Until it is killed, with all that it has mapped and opened. */
static void stay(const char *word)
{
	say(word);
	for (;;)
		pause();
}

/* ---------------------------------------------------------------------- collapse */

struct collapse {
	int file, device, second;
	off_t offset;
	const char *good;
	unsigned int holes;
	bool buffered;
	pthread_barrier_t start, end;
	/* of the present hole */
	off_t hole;
	double delay_us;
	atomic_int punched;
	unsigned int wrong_before;
	/* of all */
	unsigned int reads, wrong, kept, passed_on;
};

static double now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

static void *puncher(void *arg)
{
	struct collapse *c = arg;

	for (unsigned int i = 0; i < c->holes; i++) {
		double until;

		pthread_barrier_wait(&c->start);
		until = now_us() + c->delay_us;
		while (now_us() < until)
			;
		if (fallocate(c->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, c->hole, HOLE))
			err(2, "punch");
		atomic_store(&c->punched, 1);
		pthread_barrier_wait(&c->end);
	}
	return NULL;
}

static bool hole_is_right(struct collapse *c, int fd, char *buffer)
{
	if (pread(fd, buffer, HOLE, c->offset + c->hole) != (ssize_t)HOLE)
		err(2, "read the sibling");
	return !memcmp(buffer, c->good + c->hole, HOLE);
}

/* Reads while the hole is being punched, and twice afterwards. */
static void *sibling(void *arg)
{
	struct collapse *c = arg;
	char *buffer = buffer_or_die(HOLE);

	for (unsigned int i = 0; i < c->holes; i++) {
		int more = 2;

		pthread_barrier_wait(&c->start);
		while (more) {
			int late = atomic_load(&c->punched);

			if (late)
				more--;
			if (c->buffered)
				posix_fadvise(c->device, c->offset + c->hole, HOLE,
					      POSIX_FADV_DONTNEED);
			c->reads++;
			if (hole_is_right(c, c->device, buffer))
				continue;
			c->wrong++;
			printf("wrong bytes at %lld of the file, %s the punch\n",
			       (long long)c->hole, late ? "after" : "during");
			if (c->buffered)
				break;
		}
		pthread_barrier_wait(&c->end);
	}
	return NULL;
}

static int collapse(int argc, char **argv)
{
	struct collapse c = {
		.file = open_or_die(argv[0], O_RDWR),
		.buffered = argc > 6,
		.offset = atoll(argv[2]),
		.holes = atoi(argv[4]),
	};
	unsigned int seed = atoi(argv[5]), collapses = 0;
	int reference = open_or_die(argv[3], O_RDONLY);
	char *buffer = buffer_or_die(HUGE), *map;
	double last_us = 3000, began;
	pthread_t threads[2];

	c.device = open_or_die(argv[1], O_RDONLY | (c.buffered ? 0 : O_DIRECT));
	c.second = c.buffered ? open_or_die(argv[6], O_RDONLY | O_DIRECT) : -1;
	c.good = map_or_die(reference, HUGE, argv[3]);
	map = mmap(NULL, 2 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED)
		err(2, "mmap");
	map = (char *)(((uintptr_t)map + HUGE - 1) & ~(HUGE - 1));
	pthread_barrier_init(&c.start, NULL, 3);
	pthread_barrier_init(&c.end, NULL, 3);
	if (pthread_create(&threads[0], NULL, puncher, &c) ||
	    pthread_create(&threads[1], NULL, sibling, &c))
		err(2, "threads");
	for (unsigned int i = 0; i < c.holes; i++) {
		c.hole = i * HOLE;
		posix_fadvise(c.file, 0, 0, POSIX_FADV_DONTNEED);
		if (pread(c.file, buffer, HUGE, 0) != (ssize_t)HUGE)
			err(2, "read %s", argv[0]);
		if (mmap(map, HUGE, PROT_READ, MAP_SHARED | MAP_FIXED, c.file, 0) == MAP_FAILED)
			err(2, "mmap %s", argv[0]);
		/* The punch begins at a random moment of the collapse, or just after it. */
		c.delay_us = last_us * 1.1 * (rand_r(&seed) % 1000) / 1000;
		c.wrong_before = c.wrong;
		atomic_store(&c.punched, 0);
		pthread_barrier_wait(&c.start);
		began = now_us();
		if (!madvise(map, HUGE, MADV_COLLAPSE)) {
			collapses++;
			last_us = last_us * .9 + (now_us() - began) * .1;
		}
		pthread_barrier_wait(&c.end);
		if (c.buffered && c.wrong != c.wrong_before) {
			c.kept += !hole_is_right(&c, c.device, buffer);
			c.passed_on += !hole_is_right(&c, c.second, buffer);
		}
		munmap(map, HUGE);
	}
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	printf("%u holes, %u collapses of %.0f us, %u reads, %u wrong; %u stayed, %u passed on\n",
	       c.holes, collapses, last_us, c.reads, c.wrong, c.kept, c.passed_on);
	return c.wrong || c.passed_on ? 1 : 0;
}

/* ------------------------------------------------------------------------ others */

/* The kernel finds out that the buffer ends only when it copies. */
static int cut_write(char **argv)
{
	size_t length = atoi(argv[2]), present = atoi(argv[3]), space;
	int fd = open_or_die(argv[0], O_WRONLY);
	char *buffer;

	space = (length + PAGE - 1) & ~(PAGE - 1);
	buffer = mmap(NULL, space + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		      -1, 0);
	if (buffer == MAP_FAILED)
		err(2, "mmap");
	memset(buffer, 0x66, PAGE);
	if (mprotect(buffer + PAGE, space, PROT_NONE))
		err(2, "mprotect");
	if (pwrite(fd, buffer + PAGE - present, length, atoll(argv[1])) < 0)
		err(2, "%s", argv[0]);
	return 0;
}

static int grow(const char *directory, const char *blocks)
{
	uint64_t count = atoll(blocks);

	if (ioctl(open_or_die(directory, O_RDONLY), EXT4_IOC_RESIZE_FS, &count))
		err(2, "resize %s", directory);
	return 0;
}

static void map_device(const char *path)
{
	int fd = open_or_die(path, O_RDONLY);
	off_t size = lseek(fd, 0, SEEK_END);

	touch_or_die(map_or_die(fd, size, path), size, path);
	stay("mapped");
}

static int move_extents(char **argv)
{
	struct move_extent move = {
		.donor_fd = open_or_die(argv[1], O_RDWR),
		.orig_start = atoll(argv[2]),
		.donor_start = atoll(argv[3]),
		.len = atoll(argv[4]),
	};

	if (ioctl(open_or_die(argv[0], O_RDWR), EXT4_IOC_MOVE_EXT, &move))
		err(2, "move extents of %s", argv[0]);
	return move.moved_len == move.len ? 0 : 1;
}

static void pattern(uint64_t *page, uint64_t number)
{
	for (size_t i = 0; i < PAGE / sizeof(*page); i++)
		page[i] = number << 16 | i;
}

static int page_out(const char *mib)
{
	size_t size = (size_t)atoi(mib) << 20;
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			    -1, 0);
	uint64_t wanted[PAGE / sizeof(uint64_t)];
	char line[16];

	if (memory == MAP_FAILED)
		err(2, "mmap");
	for (size_t at = 0; at < size; at += PAGE)
		pattern((uint64_t *)(memory + at), at);
	if (madvise(memory, size, MADV_PAGEOUT))
		err(2, "page out");
	say("out");
	if (!fgets(line, sizeof(line), stdin))
		return 2;
	for (size_t at = 0; at < size; at += PAGE) {
		pattern(wanted, at);
		if (memcmp(memory + at, wanted, PAGE)) {
			printf("wrong bytes swapped in at %zu\n", at);
			return 1;
		}
		memset(memory + at, 0xee, PAGE);
	}
	stay("in");
	return 0;
}

static int poison_page(const char *path, const char *offset)
{
	int fd = open_or_die(path, O_RDONLY);
	size_t at = atoll(offset);
	char *page = map_or_die(fd, at + PAGE, path) + at;

	touch_or_die(page, PAGE, path);
	if (!madvise(page, PAGE, MADV_HWPOISON))
		return 0;
	if (errno != EINVAL)
		err(2, "memory failure in %s", path);
	return 77;
}

static void remove_held(char **argv)
{
	size_t at = atoll(argv[1]), length = atoll(argv[2]);
	int fd = open_or_die(argv[0], O_RDWR), ends[2];
	char *map = mmap(NULL, at + length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	struct iovec held = { .iov_base = map + at - PAGE, .iov_len = PAGE };

	if (map == MAP_FAILED)
		err(2, "mmap %s", argv[0]);
	if (pipe(ends) || vmsplice(ends[1], &held, 1, 0) != (ssize_t)PAGE)
		err(2, "vmsplice");
	if (madvise(map + at, length, MADV_REMOVE))
		err(2, "remove");
	stay("removed");
}

struct direct_read {
	int fd;
	off_t offset;
	size_t length;
	char *buffer;
};

static void *read_directly(void *arg)
{
	struct direct_read *r = arg;

	if (pread(r->fd, r->buffer, r->length, r->offset) != (ssize_t)r->length)
		err(2, "direct read");
	return NULL;
}

static int scribble(char **argv)
{
	struct direct_read r = {
		.fd = open_or_die(argv[0], O_RDONLY | O_DIRECT),
		.offset = atoll(argv[1]),
		.length = atoll(argv[2]),
	};
	pthread_t reader;

	r.buffer = buffer_or_die(r.length);
	memset(r.buffer, 0x55, r.length);
	if (pthread_create(&reader, NULL, read_directly, &r))
		err(2, "thread");
	usleep(atoi(argv[3]) * 1000);
	memset(r.buffer, 0x66, r.length);
	pthread_join(reader, NULL);
	return r.buffer[0] == 0x66 ? 0 : 1;
}

static int swap_boot(const char *path)
{
	if (ioctl(open_or_die(path, O_RDWR), EXT4_IOC_SWAP_BOOT))
		err(2, "swap %s with the boot loader", path);
	return 0;
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "";

	if ((argc == 8 || argc == 9) && !strcmp(command, "collapse"))
		return collapse(argc - 2, argv + 2);
	if (argc == 6 && !strcmp(command, "cut-write"))
		return cut_write(argv + 2);
	if (argc == 4 && !strcmp(command, "grow"))
		return grow(argv[2], argv[3]);
	if (argc == 3 && !strcmp(command, "map"))
		map_device(argv[2]);
	if (argc == 7 && !strcmp(command, "move-extents"))
		return move_extents(argv + 2);
	if (argc == 3 && !strcmp(command, "page-out"))
		return page_out(argv[2]);
	if (argc == 4 && !strcmp(command, "poison"))
		return poison_page(argv[2], argv[3]);
	if (argc == 5 && !strcmp(command, "remove-held"))
		remove_held(argv + 2);
	if (argc == 6 && !strcmp(command, "scribble"))
		return scribble(argv + 2);
	if (argc == 3 && !strcmp(command, "swap-boot"))
		return swap_boot(argv[2]);
	fprintf(stderr, "drr-pages: unknown command : see the top of drr-pages.c\n");
	return 2;
}
