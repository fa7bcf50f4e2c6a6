// SPDX-License-Identifier: GPL-2.0
/*
 * Load on several siblings while something below them fails. Errors are welcome, wrong
 * bytes are not.
 *
 *   fault-load run SEED STATE REFERENCE_DIR DIR...
 *	For each DIR two threads. One reads the files that it shares with REFERENCE_DIR,
 *	through the page cache and direct, and drops them from the cache now and then. The
 *	other writes files of its own, syncs them and reads them back. STATE.ready appears
 *	when the faults may begin, STATE.read_errors and STATE.write_errors with the first
 *	of them. After SIGUSR1 nothing more is expected of fsync. Goes on until SIGTERM, then
 *	prints a line of figures, and leaves in STATE what has to be found in the written
 *	files.
 *
 *   fault-load verify STATE DIR...
 *	Reads the written files and compares: for each page a generation that is at least
 *	the last one that a successful fsync has made durable, and at most the last one
 *	that was written.
 *
 * Exit status 1: a wrong byte. 3: no progress.
 */
#define _GNU_SOURCE
#include <err.h>
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "page.h"

#define MAX_DIRS 8
#define MAX_FILES 64
#define OWN_FILES 3
#define OWN_PAGES 160
#define CHUNK_PAGES 64ul
#define STALLED_SECONDS 90

struct reference {
	char name[64];
	const char *data;
	size_t size;
};

/* Of one page of a written file. */
struct model {
	/* What must be there at least, and at most. */
	uint32_t durable, latest;
	/* Written after the last fsync, whether that succeeded or not. */
	uint32_t unsynced;
};

struct side {
	const char *dir;
	int number;
	unsigned int seed;
	struct model model[OWN_FILES][OWN_PAGES];
	/* Of the reader, and of the writer. */
	unsigned long pages_read, read_errors, pages_checked, writes, syncs, write_errors;
	atomic_ulong beats[2];
	bool wrong;
};

static struct reference references[MAX_FILES];
static int reference_count;
static struct side sides[MAX_DIRS];
static int side_count;
static atomic_int stop, promises_off;
static pthread_barrier_t ready;
static const char *state;

static const char *path_of(char *buffer, const char *dir, const char *name)
{
	snprintf(buffer, 512, "%s/%s", dir, name);
	return buffer;
}

/* Tells whoever waits for it by a file STATE.NAME. */
static void announce(const char *name)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s.%s", state, name);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	if (fd < 0)
		err(2, "create %s", path);
	close(fd);
}

static void failed(unsigned long *counter, const char *name)
{
	if (!(*counter)++)
		announce(name);
}

static const char *own_path(char *buffer, const struct side *side, int file)
{
	snprintf(buffer, 512, "%s/own%d", side->dir, file);
	return buffer;
}

static void load_references(const char *dir)
{
	DIR *stream = opendir(dir);
	struct dirent *entry;
	char path[512];

	if (!stream)
		err(2, "open %s", dir);
	while ((entry = readdir(stream)) && reference_count < MAX_FILES) {
		struct reference *ref = &references[reference_count];
		int fd = open(path_of(path, dir, entry->d_name), O_RDONLY);
		struct stat st;

		if (fd < 0 || fstat(fd, &st))
			err(2, "open %s", path);
		if (S_ISREG(st.st_mode) && st.st_size) {
			snprintf(ref->name, sizeof(ref->name), "%.63s", entry->d_name);
			ref->size = st.st_size;
			ref->data = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
			if (ref->data == MAP_FAILED)
				err(2, "map %s", path);
			reference_count++;
		}
		close(fd);
	}
	closedir(stream);
	if (!reference_count)
		err(2, "no files in %s", dir);
}

/* ----------------------------------------------------------------- the shared files */

static void compare(struct side *side, const struct reference *ref, const char *got, size_t at,
		    size_t len)
{
	size_t i;

	if (!memcmp(got, ref->data + at, len))
		return;
	for (i = 0; got[i] == ref->data[at + i]; i++)
		;
	printf("WRONG: %s/%s: byte %zu is %02x, should be %02x\n", side->dir, ref->name, at + i,
	       (unsigned char)got[i], (unsigned char)ref->data[at + i]);
	side->wrong = true;
}

static void *reader(void *arg)
{
	alignas(PAGE) char buffer[CHUNK_PAGES * PAGE];
	struct side *side = arg;
	unsigned int seed = side->seed;
	char path[512];

	pthread_barrier_wait(&ready);
	while (!stop) {
		const struct reference *ref = &references[rand_r(&seed) % reference_count];
		bool direct = rand_r(&seed) % 8 == 0;
		size_t pages = (ref->size + PAGE - 1) / PAGE, at;
		int fd;

		side->beats[0]++;
		fd = open(path_of(path, side->dir, ref->name),
			  O_RDONLY | (direct ? O_DIRECT : 0));
		if (fd < 0) {
			failed(&side->read_errors, "read_errors");
			usleep(1000);
			continue;
		}
		at = rand_r(&seed) % pages * PAGE;
		for (int i = 0; i < 4 && at < ref->size && !stop; i++) {
			size_t len = (rand_r(&seed) % CHUNK_PAGES + 1) * PAGE;
			ssize_t bytes = pread(fd, buffer, len, at);

			if (bytes < 0) {
				failed(&side->read_errors, "read_errors");
				break;
			}
			compare(side, ref, buffer, at, bytes);
			side->pages_read += bytes / PAGE;
			at += len;
		}
		if (rand_r(&seed) % 4 == 0)
			posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		close(fd);
	}
	return NULL;
}

/* ----------------------------------------------------------------- the written files */

static void check_own(struct side *side, int file, size_t page, const void *data)
{
	struct model *model = &side->model[file][page];
	int64_t found = page_generation(data, side->number + 1, file, page);

	side->pages_checked++;
	if (found >= model->durable && found <= model->latest)
		return;
	printf("WRONG: %s/own%d: page %zu has generation %lld, should have %u..%u\n", side->dir,
	       file, page, (long long)found, model->durable, model->latest);
	page_describe(data);
	side->wrong = true;
}

static bool read_own(struct side *side, int file, int fd, size_t page, size_t count)
{
	alignas(PAGE) char buffer[CHUNK_PAGES * PAGE];
	ssize_t bytes = pread(fd, buffer, count * PAGE, page * PAGE);

	if (bytes < 0)
		return false;
	for (size_t i = 0; i < bytes / PAGE; i++)
		check_own(side, file, page + i, buffer + i * PAGE);
	return true;
}

static bool write_own(struct side *side, int file, int fd, size_t page, size_t count,
		      uint32_t generation)
{
	alignas(PAGE) char buffer[CHUNK_PAGES * PAGE];

	for (size_t i = 0; i < count; i++) {
		struct model *model = &side->model[file][page + i];

		page_fill(buffer + i * PAGE, side->number + 1, file, page + i, generation);
		model->latest = generation;
		model->unsynced = generation;
	}
	side->writes++;
	if (pwrite(fd, buffer, count * PAGE, page * PAGE) == (ssize_t)(count * PAGE))
		return true;
	/* Of a write that has failed, no fsync makes anything durable. */
	for (size_t i = 0; i < count; i++)
		side->model[file][page + i].unsynced = 0;
	return false;
}

/*
 * A failed fsync says that something written since the last one is lost, and leaves the
 * pages clean: they may turn up or not, and no later fsync changes that.
 */
static bool sync_own(struct side *side, int file, int fd)
{
	bool ok = !fsync(fd), promised = ok && !promises_off;

	for (size_t page = 0; page < OWN_PAGES; page++) {
		struct model *model = &side->model[file][page];

		if (promised && model->unsynced)
			model->durable = model->unsynced;
		model->unsynced = 0;
	}
	side->syncs++;
	return ok;
}

static void prepare_own(struct side *side)
{
	int dir = open(side->dir, O_RDONLY | O_DIRECTORY), fd;
	char path[512];

	for (int file = 0; file < OWN_FILES; file++) {
		fd = open(own_path(path, side, file), O_RDWR | O_CREAT | O_TRUNC, 0600);
		if (fd < 0)
			err(2, "create %s", path);
		/* The last file is left empty: it is all allocated during the faults. */
		for (size_t page = 0; file < OWN_FILES - 1 && page < OWN_PAGES; page += 32)
			if (!write_own(side, file, fd, page, 32, 1))
				err(2, "write %s", path);
		if (ftruncate(fd, OWN_PAGES * PAGE) || !sync_own(side, file, fd))
			err(2, "sync %s", path);
		close(fd);
	}
	if (dir < 0 || fsync(dir))
		err(2, "sync %s", side->dir);
	close(dir);
}

static void *writer(void *arg)
{
	struct side *side = arg;
	unsigned int seed = side->seed ^ 0x5a5a;
	uint32_t generation = 1;
	char path[512];

	prepare_own(side);
	pthread_barrier_wait(&ready);
	while (!stop) {
		int file = rand_r(&seed) % OWN_FILES;
		bool direct = rand_r(&seed) % 4 == 0, ok = true;
		int fd = open(own_path(path, side, file), O_RDWR | (direct ? O_DIRECT : 0));

		side->beats[1]++;
		if (fd < 0) {
			failed(&side->write_errors, "write_errors");
			usleep(1000);
			continue;
		}
		for (int i = 0; i < 4 && ok && !stop; i++) {
			size_t page = rand_r(&seed) % OWN_PAGES;
			size_t count = rand_r(&seed) % CHUNK_PAGES + 1;

			if (count > OWN_PAGES - page)
				count = OWN_PAGES - page;
			ok = write_own(side, file, fd, page, count, ++generation);
		}
		ok = sync_own(side, file, fd) && ok;
		if (!ok) {
			failed(&side->write_errors, "write_errors");
			usleep(1000);
		}
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		for (size_t page = 0; page < OWN_PAGES && !stop; page += 32)
			if (!read_own(side, file, fd, page, 32))
				failed(&side->read_errors, "read_errors");
		close(fd);
	}
	return NULL;
}

/* ---------------------------------------------------------------------------- run */

/* Where a thread that doesn't go on is. */
static void show_stacks(void)
{
	fflush(stdout);
	if (system("grep -H . /proc/$PPID/task/*/stack"))
		printf("no stacks\n");
}

static void end_load(int signal)
{
	if (signal == SIGUSR1)
		promises_off = 1;
	else
		stop = 1;
}

/* Sleeps until the load is to end, or stands still. */
static bool watch(void)
{
	unsigned long last[MAX_DIRS][2] = {};
	time_t moved[MAX_DIRS][2];

	for (int i = 0; i < side_count * 2; i++)
		moved[i / 2][i % 2] = time(NULL);
	while (!stop) {
		usleep(100000);
		for (int i = 0; i < side_count * 2; i++) {
			struct side *side = &sides[i / 2];

			if (last[i / 2][i % 2] != side->beats[i % 2]) {
				last[i / 2][i % 2] = side->beats[i % 2];
				moved[i / 2][i % 2] = time(NULL);
			} else if (time(NULL) - moved[i / 2][i % 2] > STALLED_SECONDS) {
				printf("STALLED: %s %s\n", i % 2 ? "writer" : "reader",
				       side->dir);
				return false;
			}
		}
	}
	return true;
}

static void *end_watch(void *arg)
{
	(void)arg;
	sleep(STALLED_SECONDS);
	printf("STALLED: a thread doesn't end\n");
	show_stacks();
	_exit(3);
}

static void save(void)
{
	FILE *file = fopen(state, "w");

	if (!file)
		err(2, "create %s", state);
	for (int i = 0; i < side_count; i++)
		if (fwrite(sides[i].model, sizeof(sides[i].model), 1, file) != 1)
			err(2, "write %s", state);
	if (fclose(file))
		err(2, "write %s", state);
}

static int run(unsigned int seed, const char *reference_dir)
{
	pthread_t threads[2 * MAX_DIRS], watcher;
	unsigned long read = 0, read_errors = 0, checked = 0, writes = 0, syncs = 0, errors = 0;
	bool wrong = false;

	signal(SIGTERM, end_load);
	signal(SIGUSR1, end_load);
	load_references(reference_dir);
	pthread_barrier_init(&ready, NULL, 2 * side_count + 1);
	for (int i = 0; i < side_count; i++) {
		sides[i].seed = seed * 31 + i;
		if (pthread_create(&threads[2 * i], NULL, reader, &sides[i]) ||
		    pthread_create(&threads[2 * i + 1], NULL, writer, &sides[i]))
			err(2, "threads");
	}
	pthread_barrier_wait(&ready);
	announce("ready");
	if (!watch()) {
		show_stacks();
		_exit(3);
	}
	if (pthread_create(&watcher, NULL, end_watch, NULL))
		err(2, "threads");
	for (int i = 0; i < 2 * side_count; i++)
		pthread_join(threads[i], NULL);
	save();
	for (int i = 0; i < side_count; i++) {
		read += sides[i].pages_read;
		read_errors += sides[i].read_errors;
		checked += sides[i].pages_checked;
		writes += sides[i].writes;
		syncs += sides[i].syncs;
		errors += sides[i].write_errors;
		wrong |= sides[i].wrong;
	}
	printf("pages=%lu read_errors=%lu own_pages=%lu ", read, read_errors, checked);
	printf("writes=%lu syncs=%lu write_errors=%lu wrong=%d\n", writes, syncs, errors, wrong);
	return wrong;
}

static int verify(void)
{
	FILE *file = fopen(state, "r");
	bool wrong = false;
	char path[512];

	if (!file)
		err(2, "open %s", state);
	for (int i = 0; i < side_count; i++) {
		struct side *side = &sides[i];

		if (fread(side->model, sizeof(side->model), 1, file) != 1)
			err(2, "read %s", state);
		for (int own = 0; own < OWN_FILES; own++) {
			int fd = open(own_path(path, side, own), O_RDONLY);

			if (fd < 0)
				err(2, "open %s", path);
			for (size_t page = 0; page < OWN_PAGES; page += 32)
				if (!read_own(side, own, fd, page, 32))
					err(2, "read %s", path);
			close(fd);
		}
		printf("%s: %lu pages verified\n", side->dir, side->pages_checked);
		wrong |= side->wrong || side->pages_checked != OWN_FILES * OWN_PAGES;
	}
	fclose(file);
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
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 5 && !strcmp(argv[1], "run")) {
		state = argv[3];
		take_dirs(argv + 5, argc - 5);
		return run(atoi(argv[2]), argv[4]);
	}
	if (argc > 3 && !strcmp(argv[1], "verify")) {
		state = argv[2];
		take_dirs(argv + 3, argc - 3);
		return verify();
	}
	fprintf(stderr, "fault-load: unknown command : see the top of fault-load.c\n");
	return 2;
}
