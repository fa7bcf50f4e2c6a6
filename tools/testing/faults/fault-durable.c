// SPDX-License-Identifier: GPL-2.0
/*
 * Writes files, syncs them, and says so; after a power cut, looks whether it was true.
 *
 *   fault-durable image DIR
 *	Puts the files of an image there.
 *
 *   fault-durable run SEED DIR...
 *	For each DIR a thread that writes, and one that reads the image's files and checks
 *	them. What the writer does in its step n follows from SEED, the DIR's number and n;
 *	it says "durable WRITER n" when the fsync of that step has succeeded. Never ends.
 *
 *   fault-durable verify SEED LOG DIR...
 *	LOG is what `run` has said. Exit status 1 if a file is not as the last step that was
 *	durable left it, or as the one after that did, which may have been under way.
 *
 * A step is one of: pages of one of four files overwritten in place; a new file made; the
 * file `state` replaced by rename. Old new files are removed.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdalign.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "page.h"

#define IMAGE_FILES 4
#define IMAGE_PAGES 256
#define HOT_FILES 4
#define HOT_PAGES 128
#define MAX_PAGES 32
#define MAX_DIRS 8
#define NEW_FILE 1000
#define STATE_FILE 999
#define KEPT_STEPS 60u

enum kind { OVERWRITE, CREATE, REPLACE };

struct step {
	enum kind kind;
	unsigned int file, page, count;
	bool datasync;
};

struct side {
	const char *dir;
	unsigned int number;
	unsigned int durable;
};

static struct side sides[MAX_DIRS];
static int side_count;
static uint64_t seed;

static struct step step_of(unsigned int writer, unsigned int n)
{
	uint64_t random = mix(mix(seed + writer) + n);
	struct step step = { .datasync = random >> 60 & 1 };

	step.count = random % MAX_PAGES + 1;
	random >>= 8;
	switch (random % 4) {
	case 0:
		step.kind = CREATE;
		step.file = NEW_FILE + n;
		break;
	case 1:
		step.kind = REPLACE;
		step.file = STATE_FILE;
		break;
	default:
		step.kind = OVERWRITE;
		step.file = (random >> 8) % HOT_FILES;
		step.page = (random >> 16) % (HOT_PAGES - step.count + 1);
	}
	return step;
}

static const char *path_of(char *path, const struct side *side, const char *kind,
			   unsigned int number)
{
	snprintf(path, 512, "%s/%s%u", side->dir, kind, number);
	return path;
}

static void write_pages(int fd, unsigned int writer, unsigned int file, unsigned int page,
			unsigned int count, unsigned int generation, const char *path)
{
	alignas(PAGE) char buffer[MAX_PAGES * PAGE];

	for (unsigned int i = 0; i < count; i++)
		page_fill(buffer + i * PAGE, writer, file, page + i, generation);
	if (pwrite(fd, buffer, count * PAGE, page * PAGE) != (ssize_t)(count * PAGE))
		err(2, "write %s", path);
}

static int make_file(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	if (fd < 0)
		err(2, "create %s", path);
	return fd;
}

static void sync_close(int fd, bool datasync, const char *path)
{
	if (datasync ? fdatasync(fd) : fsync(fd))
		err(2, "sync %s", path);
	close(fd);
}

static void sync_dir(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY);

	if (fd < 0)
		err(2, "open %s", dir);
	sync_close(fd, false, dir);
}

/* -------------------------------------------------------------------------- image */

static int make_image(const char *dir)
{
	struct side side = { .dir = dir };
	char path[512];

	for (unsigned int file = 0; file < IMAGE_FILES; file++) {
		int fd = make_file(path_of(path, &side, "image", file));

		for (unsigned int page = 0; page < IMAGE_PAGES; page += MAX_PAGES)
			write_pages(fd, 0, file, page, MAX_PAGES, 1, path);
		sync_close(fd, false, path);
	}
	return 0;
}

static bool check_image(const struct side *side, unsigned int file)
{
	alignas(PAGE) char buffer[MAX_PAGES * PAGE];
	bool wrong = false;
	char path[512];
	int fd = open(path_of(path, side, "image", file), O_RDONLY);

	if (fd < 0)
		err(2, "open %s", path);
	for (unsigned int page = 0; page < IMAGE_PAGES; page += MAX_PAGES) {
		if (pread(fd, buffer, sizeof(buffer), page * PAGE) != sizeof(buffer))
			err(2, "read %s", path);
		for (unsigned int i = 0; i < MAX_PAGES; i++) {
			if (page_generation(buffer + i * PAGE, 0, file, page + i) == 1)
				continue;
			printf("WRONG: %s page %u: ", path, page + i);
			page_describe(buffer + i * PAGE);
			wrong = true;
		}
	}
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
	return wrong;
}

/* ---------------------------------------------------------------------------- run */

static void *reader(void *arg)
{
	struct side *side = arg;

	for (unsigned int n = 0;; n++)
		if (check_image(side, (n + side->number) % IMAGE_FILES))
			exit(1);
	return NULL;
}

/* The line is out, not merely on its way, before anything else is done. */
static void say_durable(unsigned int writer, unsigned int n)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

	pthread_mutex_lock(&lock);
	printf("durable %u %u\n", writer, n);
	fflush(stdout);
	tcdrain(STDOUT_FILENO);
	pthread_mutex_unlock(&lock);
}

static void take_step(const struct side *side, unsigned int n)
{
	struct step step = step_of(side->number, n);
	char path[512], other[512];
	int fd;

	switch (step.kind) {
	case OVERWRITE:
		fd = open(path_of(path, side, "hot", step.file), O_RDWR);
		if (fd < 0)
			err(2, "open %s", path);
		write_pages(fd, side->number + 1, step.file, step.page, step.count, n, path);
		sync_close(fd, step.datasync, path);
		break;
	case CREATE:
		fd = make_file(path_of(path, side, "new", n));
		write_pages(fd, side->number + 1, step.file, 0, step.count, n, path);
		sync_close(fd, false, path);
		sync_dir(side->dir);
		break;
	case REPLACE:
		fd = make_file(path_of(path, side, "next", 0));
		write_pages(fd, side->number + 1, step.file, 0, step.count, n, path);
		sync_close(fd, step.datasync, path);
		if (rename(path, path_of(other, side, "state", 0)))
			err(2, "rename %s", path);
		sync_dir(side->dir);
		break;
	}
	if (n > KEPT_STEPS)
		unlink(path_of(path, side, "new", n - KEPT_STEPS));
}

static void *writer(void *arg)
{
	struct side *side = arg;
	char path[512];

	for (unsigned int file = 0; file < HOT_FILES; file++) {
		int fd = make_file(path_of(path, side, "hot", file));

		if (ftruncate(fd, HOT_PAGES * PAGE))
			err(2, "extend %s", path);
		sync_close(fd, false, path);
	}
	sync_dir(side->dir);
	say_durable(side->number, 0);
	for (unsigned int n = 1;; n++) {
		take_step(side, n);
		say_durable(side->number, n);
	}
	return NULL;
}

static int run(void)
{
	pthread_t thread;

	for (int i = 0; i < side_count; i++)
		if (pthread_create(&thread, NULL, writer, &sides[i]) ||
		    pthread_create(&thread, NULL, reader, &sides[i]))
			err(2, "threads");
	pause();
	return 0;
}

/* ------------------------------------------------------------------------- verify */

static void read_log(const char *path)
{
	FILE *file = fopen(path, "r");
	unsigned int number, n;
	char line[256];

	if (!file)
		err(2, "open %s", path);
	for (int i = 0; i < side_count; i++)
		sides[i].durable = -1;
	/* A last line that was cut short has no end. */
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "durable %u %u", &number, &n) == 2 && strchr(line, '\n') &&
		    number < (unsigned int)side_count)
			sides[number].durable = n;
	fclose(file);
}

/* A page that step n may have written is as that step, or an earlier one, left it. */
static bool check_page(const struct side *side, const char *path, unsigned int file,
		       unsigned int page, const void *data, unsigned int wanted, bool or_next)
{
	int64_t found = page_generation(data, side->number + 1, file, page);

	if (found == wanted || (or_next && found == side->durable + 1))
		return false;
	printf("WRONG: %s: page %u has generation %lld, should have %u%s\n", path, page,
	       (long long)found, wanted, or_next ? " or the next" : "");
	page_describe(data);
	return true;
}

static bool check_hot(const struct side *side, unsigned int file)
{
	alignas(PAGE) char buffer[PAGE];
	unsigned int wanted[HOT_PAGES] = {};
	struct step next = step_of(side->number, side->durable + 1);
	bool wrong = false;
	char path[512];
	int fd = open(path_of(path, side, "hot", file), O_RDONLY);

	if (fd < 0)
		err(2, "open %s", path);
	for (unsigned int n = 1; n <= side->durable; n++) {
		struct step step = step_of(side->number, n);

		for (unsigned int i = 0; i < step.count; i++)
			if (step.kind == OVERWRITE && step.file == file)
				wanted[step.page + i] = n;
	}
	for (unsigned int page = 0; page < HOT_PAGES; page++) {
		bool or_next = next.kind == OVERWRITE && next.file == file &&
			       page >= next.page && page < next.page + next.count;

		if (pread(fd, buffer, PAGE, page * PAGE) != (ssize_t)PAGE)
			err(2, "read %s", path);
		wrong |= check_page(side, path, file, page, buffer, wanted[page], or_next);
	}
	close(fd);
	return wrong;
}

/* A file that was made in one go: whole, as step n or the next left it. */
static bool check_whole(const struct side *side, const char *path, unsigned int n)
{
	alignas(PAGE) char buffer[PAGE];
	struct step step = step_of(side->number, n);
	int fd = open(path, O_RDONLY);
	bool wrong = false;
	struct stat st;

	if (fd < 0 || fstat(fd, &st)) {
		printf("WRONG: %s, of step %u, is not there: %s\n", path, n, strerror(errno));
		return true;
	}
	if (st.st_size != (off_t)(step.count * PAGE)) {
		printf("WRONG: %s has %lld bytes\n", path, (long long)st.st_size);
		wrong = true;
	}
	for (unsigned int page = 0; page < step.count && !wrong; page++) {
		if (pread(fd, buffer, PAGE, page * PAGE) != (ssize_t)PAGE)
			err(2, "read %s", path);
		wrong = check_page(side, path, step.file, page, buffer, n, false);
	}
	close(fd);
	return wrong;
}

/* The step that `state` is of, by its first page. */
static unsigned int state_generation(const char *path)
{
	struct page_name name = {};
	int fd = open(path, O_RDONLY);

	if (fd < 0 || pread(fd, &name, sizeof(name), 0) != sizeof(name))
		name.generation = 0;
	if (fd >= 0)
		close(fd);
	return name.generation;
}

static bool check_side(const struct side *side)
{
	unsigned int state = 0, n;
	bool wrong = false;
	char path[512];

	for (n = 0; n < IMAGE_FILES; n++)
		wrong |= check_image(side, n);
	if (side->durable == -1u)
		return wrong;
	for (n = 0; n < HOT_FILES; n++)
		wrong |= check_hot(side, n);
	for (n = 1; n <= side->durable; n++) {
		enum kind kind = step_of(side->number, n).kind;

		if (kind == REPLACE)
			state = n;
		/* The next step may have removed one more. */
		if (kind == CREATE && n + KEPT_STEPS > side->durable + 1)
			wrong |= check_whole(side, path_of(path, side, "new", n), n);
	}
	if (state) {
		path_of(path, side, "state", 0);
		if (step_of(side->number, side->durable + 1).kind == REPLACE &&
		    state_generation(path) == side->durable + 1)
			state = side->durable + 1;
		wrong |= check_whole(side, path, state);
	}
	return wrong;
}

static int verify(const char *log)
{
	bool wrong = false;

	read_log(log);
	for (int i = 0; i < side_count; i++) {
		bool bad = check_side(&sides[i]);

		printf("%s: %d steps were durable%s\n", sides[i].dir, (int)sides[i].durable,
		       bad ? ", and are not" : "");
		wrong |= bad;
	}
	return wrong;
}

static void take_dirs(char **dirs, int count)
{
	if (count > MAX_DIRS) {
		errno = E2BIG;
		err(2, "%d directories", count);
	}
	side_count = count;
	for (int i = 0; i < count; i++) {
		sides[i].dir = dirs[i];
		sides[i].number = i;
	}
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "image"))
		return make_image(argv[2]);
	if (argc > 3 && !strcmp(argv[1], "run")) {
		seed = strtoull(argv[2], NULL, 0);
		take_dirs(argv + 3, argc - 3);
		return run();
	}
	if (argc > 4 && !strcmp(argv[1], "verify")) {
		seed = strtoull(argv[2], NULL, 0);
		take_dirs(argv + 4, argc - 4);
		return verify(argv[3]);
	}
	fprintf(stderr, "fault-durable: unknown command : see the top of fault-durable.c\n");
	return 2;
}
