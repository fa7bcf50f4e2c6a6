// SPDX-License-Identifier: GPL-2.0
/*
 * Reads a block of a device past the page cache, again and again, while another
 * thread looks at the buffer all the time: a byte that is neither what was there
 * before nor the block's must never be seen.
 *
 * usage: drr-watch-read DEVICE BYTE SECONDS
 * All bytes of the first 64 KiB of DEVICE are BYTE.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SIZE 65536
#define BEFORE 0x5a

static unsigned char *buffer;
static unsigned char wanted;
static atomic_int done;
static atomic_int strange = -1;

static void *watch(void *unused)
{
	(void)unused;
	while (!atomic_load(&done)) {
		/* a byte of each line will do: pages are all of one byte */
		for (int at = 0; at < SIZE; at += 64) {
			unsigned char seen = __atomic_load_n(&buffer[at], __ATOMIC_RELAXED);

			if (seen != BEFORE && seen != wanted)
				atomic_store(&strange, seen);
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t watcher;
	time_t end;
	int fd, reads = 0;

	if (argc != 4) {
		fprintf(stderr, "usage: drr-watch-read DEVICE BYTE SECONDS\n");
		return 2;
	}
	fd = open(argv[1], O_RDONLY | O_DIRECT);
	if (fd < 0) {
		perror(argv[1]);
		return 2;
	}
	wanted = strtoul(argv[2], NULL, 0);
	end = time(NULL) + atoi(argv[3]);
	if (posix_memalign((void **)&buffer, SIZE, SIZE))
		return 2;
	memset(buffer, BEFORE, SIZE);
	if (pthread_create(&watcher, NULL, watch, NULL))
		return 2;
	while (time(NULL) < end && atomic_load(&strange) < 0) {
		memset(buffer, BEFORE, SIZE);
		if (pread(fd, buffer, SIZE, 0) != SIZE) {
			perror("pread");
			return 2;
		}
		reads++;
	}
	atomic_store(&done, 1);
	pthread_join(watcher, NULL);
	if (atomic_load(&strange) >= 0) {
		printf("saw 0x%02x\n", atomic_load(&strange));
		return 1;
	}
	printf("%d reads\n", reads);
	return 0;
}
