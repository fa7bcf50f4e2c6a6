// SPDX-License-Identifier: GPL-2.0
/*
 * bench-hitrate SEED READS DEVICE...
 *
 * How often DRR serves what it could have served.  The devices are drr devices of
 * snapshots of one image, each mounted on /mnt/DEVICE, with a file `big`.  One
 * after the other, in random order, they read a page or a run of up to 32 at a
 * random place, and now and then overwrite one.  Nobody else uses them.
 *
 * Right before each read, mincore() tells which of its pages are in the reader's page
 * cache, and which in another's.  A page is possible if it isn't in the reader's
 * and is in another's, and neither of the two has written into the data block that
 * it is on: then the block is still shared, and what the other has is a clean copy.
 * The device's counters from right before the read to right after it tell how many pages
 * were served.  No more of them than are possible count, so that what the oracle
 * doesn't know of can't make up for what DRR has missed.
 *
 * Only data blocks are used that the file fills, since who changes something else
 * in a block unshares it, too.  The files are read with POSIX_FADV_RANDOM, so that
 * nothing is read but what was asked for; a read during which the device read more, or
 * less, is not counted (other.unclear).
 *
 * Prints "NAME VALUE" lines, in pages:
 *
 *   single.possible, single.hit	reads of one page
 *   runs.possible, runs.hit		reads of several
 *   all.possible, all.hit		both
 *   lost.REASON	possible but not hit, by the only miss_REASON that was counted for the
 *			read; lost.several if there was more than one
 *   lost.few	of all that was lost: in a row of less than WORTH_PAGES possible ones, in the
 *			midst of a request
 *   other.beyond	hit, but not possible
 *   other.written	pages overwritten
 *   other.unclear	reads
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096ul
#define BLOCK_PAGES 16
#define RUN_PAGES 32
#define MOST_DEVICES 8
/* Of drr/io/read.rs: donors for less in a row are left, but where a request begins or ends. */
#define WORTH_PAGES 4
/* One in so many accesses is a write; after so many writes a device's are written back. */
#define WRITES 40
#define WRITES_BACK 16

static const char *const reasons[] = {
	"unshared", "metadata", "norecord", "stale", "changed", "layout", "left", "several",
};

#define REASONS (sizeof(reasons) / sizeof(*reasons))
#define SEVERAL (REASONS - 1)

struct counters {
	unsigned long read_sectors, hit_sectors, misses[SEVERAL];
};

struct device {
	const char *name;
	int fd;
	char *map;
	unsigned char cached[RUN_PAGES];	/* of the read to come */
	bool *written;				/* by data block, see page_block */
	unsigned int dirty;
};

struct sums {
	unsigned long possible, hit;
};

static struct device devices[MOST_DEVICES];
static int count;
static int control;
static size_t pages;
static uint64_t *page_block;	/* NO_BLOCK: not to be used */
static uint64_t blocks;
static uint64_t state;

#define NO_BLOCK UINT64_MAX

static struct sums single, runs;
static unsigned long lost[REASONS], few, beyond, written, unclear;

static void *memory(size_t number, size_t size)
{
	void *it = calloc(number, size);

	if (!it)
		err(2, "memory");
	return it;
}

/* splitmix64 */
static uint64_t below(uint64_t limit)
{
	uint64_t z = state += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return (z ^ (z >> 31)) % limit;
}

/* ------------------------------------------------------------------ the devices */

static unsigned long value_of(const char *status, const char *prefix, const char *name)
{
	char word[40];
	const char *at;

	snprintf(word, sizeof(word), " %s%s=", prefix, name);
	at = strstr(status, word);
	if (!at)
		err(2, "no%s in a device's status", word);
	return strtoul(at + strlen(word), NULL, 10);
}

static void look(const struct device *device, struct counters *counters)
{
	static union {
		struct dm_ioctl head;
		char room[64 << 10];
	} io;
	const char *status;

	memset(&io, 0, sizeof(io.head));
	io.head.version[0] = DM_VERSION_MAJOR;
	io.head.data_size = sizeof(io);
	io.head.data_start = sizeof(io.head);
	io.head.flags = DM_NOFLUSH_FLAG;
	strncpy(io.head.name, device->name, sizeof(io.head.name) - 1);
	if (ioctl(control, DM_TABLE_STATUS, &io))
		err(2, "status of %s", device->name);
	status = io.room + io.head.data_start + sizeof(struct dm_target_spec);
	counters->read_sectors = value_of(status, "", "read_sectors");
	counters->hit_sectors = value_of(status, "", "hit_sectors");
	for (unsigned int i = 0; i < SEVERAL; i++)
		counters->misses[i] = value_of(status, "miss_", reasons[i]);
}

static void open_device(struct device *device, const char *name)
{
	char path[200];
	struct stat st;

	snprintf(path, sizeof(path), "/mnt/%s/big", name);
	device->name = name;
	device->fd = open(path, O_RDWR);
	if (device->fd < 0 || fstat(device->fd, &st))
		err(2, "%s", path);
	pages = st.st_size / PAGE;
	errno = posix_fadvise(device->fd, 0, 0, POSIX_FADV_RANDOM);
	if (errno)
		err(2, "fadvise");
	device->map = mmap(NULL, pages * PAGE, PROT_READ, MAP_SHARED, device->fd, 0);
	if (device->map == MAP_FAILED)
		err(2, "mmap %s", path);
}

/* The data block of each page, numbered from 0; the same for all, as they are of one image. */
static void find_blocks(int fd)
{
	const unsigned int most = 512;
	struct fiemap *map = memory(1, sizeof(*map) + most * sizeof(struct fiemap_extent));
	unsigned int *used;

	map->fm_length = FIEMAP_MAX_OFFSET;
	map->fm_extent_count = most;
	if (ioctl(fd, FS_IOC_FIEMAP, map))
		err(2, "fiemap");
	for (size_t page = 0; page < pages; page++)
		page_block[page] = NO_BLOCK;
	for (unsigned int i = 0; i < map->fm_mapped_extents; i++) {
		struct fiemap_extent *extent = &map->fm_extents[i];

		for (uint64_t at = 0; at < extent->fe_length; at += PAGE) {
			size_t page = (extent->fe_logical + at) / PAGE;
			uint64_t block = (extent->fe_physical + at) / PAGE / BLOCK_PAGES;

			if (page >= pages)
				continue;
			page_block[page] = block;
			if (block >= blocks)
				blocks = block + 1;
		}
	}
	used = memory(blocks, sizeof(*used));
	for (size_t page = 0; page < pages; page++)
		if (page_block[page] != NO_BLOCK)
			used[page_block[page]]++;
	for (size_t page = 0; page < pages; page++)
		if (page_block[page] != NO_BLOCK && used[page_block[page]] != BLOCK_PAGES)
			page_block[page] = NO_BLOCK;
	free(used);
	free(map);
}

/* ------------------------------------------------------------------- the accesses */

/* Pages from here on that may be used, up to so many. */
static unsigned int usable(size_t page, unsigned int most)
{
	unsigned int number = 0;

	while (number < most && page + number < pages && page_block[page + number] != NO_BLOCK)
		number++;
	return number;
}

static void write_page(struct device *device, size_t page)
{
	static uint64_t data[PAGE / sizeof(uint64_t)];

	for (size_t i = 0; i < PAGE / sizeof(*data); i++)
		data[i] = below(UINT64_MAX);
	device->written[page_block[page]] = true;
	if (pwrite(device->fd, data, PAGE, page * PAGE) != (ssize_t)PAGE)
		err(2, "write");
	written++;
	if (++device->dirty % WRITES_BACK == 0 && fdatasync(device->fd))
		err(2, "fdatasync");
}

static void read_pages(const struct device *device, size_t page, unsigned int number)
{
	static char buffer[RUN_PAGES * PAGE];
	size_t done = 0, all = number * PAGE;

	while (done < all) {
		ssize_t bytes = pread(device->fd, buffer, all - done, page * PAGE + done);

		if (bytes <= 0)
			err(2, "read of %s", device->name);
		done += bytes;
	}
}

static void ask(struct device *device, size_t page, unsigned int number)
{
	if (mincore(device->map + page * PAGE, number * PAGE, device->cached))
		err(2, "mincore");
}

/* Does somebody have a clean copy of what the reader would read from the shared block? */
static bool is_possible(const struct device *reader, size_t page, unsigned int at)
{
	uint64_t block = page_block[page + at];

	if (reader->written[block])
		return false;
	for (int nr = 0; nr < count; nr++) {
		const struct device *other = &devices[nr];

		if (other != reader && (other->cached[at] & 1) && !other->written[block])
			return true;
	}
	return false;
}

/*
 * Possible pages that are in a row of less than WORTH_PAGES in the midst of a request: a request is
 * for pages of one data block that the reader hasn't.
 */
static unsigned int too_few(const struct device *reader, size_t page, unsigned int number,
			    const bool *possible)
{
	unsigned int from = 0, sum = 0;

	while (from < number) {
		unsigned int to = from, row = 0;

		while (to < number && !(reader->cached[to] & 1) &&
		       page_block[page + to] == page_block[page + from])
			to++;
		for (unsigned int at = from; at <= to; at++) {
			if (at < to && possible[at]) {
				row++;
				continue;
			}
			if (row < WORTH_PAGES && at - row > from && at < to)
				sum += row;
			row = 0;
		}
		from = to > from ? to : from + 1;
	}
	return sum;
}

static void account(struct sums *sums, const struct counters *before, const struct counters *after,
		    unsigned long could, unsigned long small)
{
	unsigned long hit = (after->hit_sectors - before->hit_sectors) / (PAGE / 512);
	unsigned int reason = SEVERAL, different = 0;

	sums->possible += could;
	sums->hit += hit < could ? hit : could;
	if (hit > could)
		beyond += hit - could;
	if (hit >= could)
		return;
	for (unsigned int i = 0; i < SEVERAL; i++)
		if (after->misses[i] != before->misses[i]) {
			reason = i;
			different++;
		}
	lost[different == 1 ? reason : SEVERAL] += could - hit;
	few += small < could - hit ? small : could - hit;
}

static void measured_read(struct device *reader, size_t page, unsigned int number)
{
	struct counters before, after;
	bool possible[RUN_PAGES] = {};
	unsigned int missing = 0, could = 0;

	look(reader, &before);
	for (int nr = 0; nr < count; nr++)
		ask(&devices[nr], page, number);
	for (unsigned int at = 0; at < number; at++) {
		if (reader->cached[at] & 1)
			continue;
		missing++;
		possible[at] = is_possible(reader, page, at);
		could += possible[at];
	}
	read_pages(reader, page, number);
	if (!missing)
		return;
	look(reader, &after);
	if (after.read_sectors - before.read_sectors != missing * (PAGE / 512)) {
		unclear++;
		return;
	}
	account(number == 1 ? &single : &runs, &before, &after, could,
		too_few(reader, page, number, possible));
}

int main(int argc, char **argv)
{
	unsigned long reads;

	if (argc < 5 || argc - 3 > MOST_DEVICES) {
		fprintf(stderr, "usage: bench-hitrate SEED READS DEVICE DEVICE [DEVICE]...\n");
		return 2;
	}
	state = strtoul(argv[1], NULL, 10);
	reads = strtoul(argv[2], NULL, 10);
	count = argc - 3;
	control = open("/dev/mapper/control", O_RDWR);
	if (control < 0)
		err(2, "/dev/mapper/control");
	for (int nr = 0; nr < count; nr++)
		open_device(&devices[nr], argv[3 + nr]);
	page_block = memory(pages, sizeof(*page_block));
	find_blocks(devices[0].fd);
	for (int nr = 0; nr < count; nr++)
		devices[nr].written = memory(blocks, sizeof(bool));

	/* First the memory fills, with the longest runs; that isn't counted. */
	for (size_t done = 0; done < pages * count;) {
		size_t page = below(pages);
		unsigned int number = usable(page, RUN_PAGES);

		if (number)
			read_pages(&devices[below(count)], page, number);
		done += number ? number : 1;
	}
	while (reads) {
		struct device *device = &devices[below(count)];
		size_t page = below(pages);
		unsigned int number = usable(page, below(2) ? 1 : 2 + below(RUN_PAGES - 1));

		if (!number)
			continue;
		if (!below(WRITES)) {
			write_page(device, page);
			continue;
		}
		measured_read(device, page, number);
		reads--;
	}

	printf("single.possible %lu\nsingle.hit %lu\n", single.possible, single.hit);
	printf("runs.possible %lu\nruns.hit %lu\n", runs.possible, runs.hit);
	printf("all.possible %lu\nall.hit %lu\n", single.possible + runs.possible,
	       single.hit + runs.hit);
	for (unsigned int i = 0; i < REASONS; i++)
		printf("lost.%s %lu\n", reasons[i], lost[i]);
	printf("lost.few %lu\nother.beyond %lu\nother.written %lu\nother.unclear %lu\n",
	       few, beyond, written, unclear);
	return 0;
}
