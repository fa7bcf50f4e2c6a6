// SPDX-License-Identifier: GPL-2.0
/*
 * Reads a device past the page cache, block by block, into the mapped pages of a
 * file, while another thread overwrites these all the time.  The pages are in a
 * page cache, then, and hold what the thread has put there.
 *
 * usage: drr-scribble DEVICE FILE BLOCKS
 * FILE is long enough for BLOCKS blocks of 64 KiB.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SIZE 65536

static atomic_uintptr_t where;

static void *scribble(void *unused)
{
	char *at;

	(void)unused;
	while ((at = (char *)atomic_load(&where)))
		memset(at, 0xee, SIZE);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t scribbler;
	char *file;
	int blocks, block, in, out;

	if (argc != 4) {
		fprintf(stderr, "usage: drr-scribble DEVICE FILE BLOCKS\n");
		return 2;
	}
	blocks = atoi(argv[3]);
	in = open(argv[1], O_RDONLY | O_DIRECT);
	out = open(argv[2], O_RDWR);
	if (in < 0 || out < 0) {
		perror("open");
		return 2;
	}
	file = mmap(NULL, (size_t)blocks * SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, out, 0);
	if (file == MAP_FAILED) {
		perror("mmap");
		return 2;
	}
	memset(file, 0xee, (size_t)blocks * SIZE);
	atomic_store(&where, (uintptr_t)file);
	if (pthread_create(&scribbler, NULL, scribble, NULL))
		return 2;
	for (block = 0; block < blocks; block++) {
		char *at = file + (size_t)block * SIZE;

		atomic_store(&where, (uintptr_t)at);
		if (pread(in, at, SIZE, (off_t)block * SIZE) != SIZE) {
			perror("pread");
			return 2;
		}
	}
	atomic_store(&where, 0);
	pthread_join(scribbler, NULL);
	memset(file, 0xee, (size_t)blocks * SIZE);
	/* Who has the pages on record may copy them as long as this lives. */
	printf("scribbled\n");
	fflush(stdout);
	pause();
	return 0;
}
