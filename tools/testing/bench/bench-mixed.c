// SPDX-License-Identifier: GPL-2.0
/*
 * bench-mixed PASSES SHARED OWN [SHARED OWN]...
 *
 * For each container the path of the file that all read, and of one that nobody
 * else reads.  Each container reads two thirds of the former, again and again, the
 * next one from further on in the file, so that they are never at the same place;
 * and meanwhile all of the latter.  They take turns, a step of 256 KiB each, so
 * that every run is the same.
 */
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define STEP (256l << 10)

struct file {
	const char *path;
	int fd;
	off_t size;
};

static char buffer[STEP];

static struct file open_file(const char *path)
{
	struct file file = { .path = path, .fd = open(path, O_RDONLY) };
	struct stat st;

	if (file.fd < 0 || fstat(file.fd, &st))
		err(2, "%s", path);
	file.size = st.st_size;
	return file;
}

static void read_at(const struct file *file, off_t at, off_t end)
{
	while (at < end) {
		off_t left = end - at < STEP ? end - at : STEP;
		ssize_t bytes = pread(file->fd, buffer, left, at);

		if (bytes <= 0)
			err(2, "%s", file->path);
		at += bytes;
	}
}

/* A step of what is read in so many of them. */
static void read_part(const struct file *file, long step, long steps)
{
	read_at(file, file->size * step / steps, file->size * (step + 1) / steps);
}

int main(int argc, char **argv)
{
	int passes, count = argc / 2 - 1;
	struct file *shared = calloc(argc, sizeof(*shared));
	struct file *own = calloc(argc, sizeof(*own));

	if (argc < 4 || argc % 2 || !shared || !own) {
		fprintf(stderr, "usage: bench-mixed PASSES SHARED OWN [SHARED OWN]...\n");
		return 2;
	}
	passes = atoi(argv[1]);
	for (int nr = 0; nr < count; nr++) {
		shared[nr] = open_file(argv[2 + 2 * nr]);
		own[nr] = open_file(argv[3 + 2 * nr]);
	}
	for (int pass = 0; pass < passes; pass++) {
		long all = shared[0].size / STEP, steps = all * 2 / 3;

		for (long step = 0; step < steps; step++)
			for (int nr = 0; nr < count; nr++) {
				off_t at = (all * nr / count + step) % all * STEP;

				read_at(&shared[nr], at, at + STEP);
				read_part(&own[nr], step, steps);
			}
	}
	return 0;
}
