// SPDX-License-Identifier: GPL-2.0
/*
 * Lets the kernel fail the first, second, third ... allocation of one system call, until
 * the call needs no more of them. For kernels with fault injection.
 *
 *   fault-nth load NAME SECTORS TYPE PARAMETERS
 *	A new device NAME is given a table; it is removed after each attempt. The first 100
 *	allocations, where the constructor's are, one by one; of the device's queue and pools
 *	after that, one in thirteen.
 *   fault-nth reload NAME SECTORS TYPE PARAMETERS
 *	An active device is given a table, which is cleared after each attempt. As above.
 *   fault-nth resume NAME
 *	A device is resumed, having been suspended before each attempt.
 *   fault-nth status NAME
 *   fault-nth message NAME MESSAGE
 *   fault-nth insmod FILE NAME
 *	A module is loaded, and unloaded after each success. The last 200 allocations, where
 *	its own are, one by one; of the module loader's before, one in thirteen.
 *   fault-nth rmmod FILE NAME
 *	It is unloaded, having been loaded before each attempt.
 *   fault-nth read FILE REFERENCE
 *	The first 64 KiB are read, having been dropped from the cache before each attempt.
 *	What is read is compared.
 *
 * An attempt in which an allocation has failed may fail, or do without. Prints how many
 * there were, and how many of them succeeded. Exit status 1: a wrong byte, or the call
 * fails without a fault.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "page.h"

#define MANY 1000000
#define INIT_ALLOCATIONS 200
#define CONSTRUCTOR_ALLOCATIONS 100
#define STRIDE 13
#define READ_BYTES (16 * PAGE)

static char **args;
static int control, nth_file;

static void set_nth(int nth)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%d", nth);

	if (pwrite(nth_file, text, len, 0) != len)
		err(2, "write /proc/self/fail-nth");
}

/* How many allocations would still have gone well: 0 if one has failed. */
static int rest_of_nth(void)
{
	char text[16] = {};

	if (pread(nth_file, text, sizeof(text) - 1, 0) <= 0)
		err(2, "read /proc/self/fail-nth");
	return atoi(text);
}

/* ----------------------------------------------------------------- device-mapper */

struct request {
	struct dm_ioctl head;
	char data[16384 - sizeof(struct dm_ioctl)];
};

static int request(unsigned long command, unsigned int flags, struct request *req)
{
	req->head.version[0] = DM_VERSION_MAJOR;
	req->head.data_size = sizeof(*req);
	req->head.data_start = sizeof(req->head);
	req->head.flags = flags;
	snprintf(req->head.name, sizeof(req->head.name), "%s", args[0]);
	return ioctl(control, command, req);
}

static int simple(unsigned long command, unsigned int flags)
{
	struct request req = {};

	return request(command, flags, &req);
}

static int load(void)
{
	struct request req = {};
	struct dm_target_spec *spec = (void *)req.data;

	req.head.target_count = 1;
	spec->length = atoll(args[1]);
	snprintf(spec->target_type, sizeof(spec->target_type), "%s", args[2]);
	snprintf(req.data + sizeof(*spec), sizeof(req.data) - sizeof(*spec), "%s", args[3]);
	return request(DM_TABLE_LOAD, 0, &req);
}

static void create_device(void)
{
	if (simple(DM_DEV_CREATE, 0))
		err(2, "create %s", args[0]);
}

static void remove_device(void)
{
	if (simple(DM_DEV_REMOVE, 0))
		err(2, "remove %s", args[0]);
}

static void clear_table(void)
{
	if (simple(DM_TABLE_CLEAR, 0))
		err(2, "clear %s", args[0]);
}

static void suspend_device(void)
{
	if (simple(DM_DEV_SUSPEND, DM_SUSPEND_FLAG))
		err(2, "suspend %s", args[0]);
}

static int resume(void)
{
	return simple(DM_DEV_SUSPEND, 0);
}

static void resume_for_good(void)
{
	if (resume())
		err(2, "resume %s", args[0]);
}

static int status(void)
{
	return simple(DM_TABLE_STATUS, 0);
}

static int message(void)
{
	struct request req = {};

	snprintf(req.data + sizeof(struct dm_target_msg),
		 sizeof(req.data) - sizeof(struct dm_target_msg), "%s", args[1]);
	return request(DM_TARGET_MSG, 0, &req);
}

/* ------------------------------------------------------------------------ modules */

static int module_file = -1;

static int insert(void)
{
	return syscall(SYS_finit_module, module_file, "", 0);
}

static void insert_for_good(void)
{
	if (insert() && errno != EEXIST)
		err(2, "load %s", args[0]);
}

static int take_out(void)
{
	return syscall(SYS_delete_module, args[1], O_NONBLOCK);
}

static void take_out_for_good(void)
{
	if (take_out() && errno != ENOENT)
		err(2, "unload %s", args[1]);
}

/* -------------------------------------------------------------------------- reads */

static char wanted[READ_BYTES], got[READ_BYTES];
static int read_file = -1;

static void drop(void)
{
	posix_fadvise(read_file, 0, 0, POSIX_FADV_DONTNEED);
	memset(got, 0xaa, sizeof(got));
}

static int read_once(void)
{
	ssize_t bytes = pread(read_file, got, READ_BYTES, 0);

	if (bytes < 0)
		return -1;
	if (memcmp(got, wanted, bytes)) {
		printf("WRONG: %s\n", args[0]);
		exit(1);
	}
	return bytes == READ_BYTES ? 0 : -1;
}

/* ------------------------------------------------------------------------- faults */

static const struct operation {
	const char *name;
	int argc;
	void (*before)(void);
	int (*call)(void);
	void (*after)(void);
} operations[] = {
	{ "load", 4, create_device, load, remove_device },
	{ "reload", 4, NULL, load, clear_table },
	{ "resume", 1, suspend_device, resume, resume_for_good },
	{ "status", 1, NULL, status, NULL },
	{ "message", 2, NULL, message, NULL },
	{ "insmod", 2, NULL, insert, take_out_for_good },
	{ "rmmod", 2, insert_for_good, take_out, take_out_for_good },
	{ "read", 2, drop, read_once, NULL },
	{}
};

/* One attempt. Returns how many allocations it did not come to. */
static int attempt(const struct operation *op, int nth, int *result)
{
	int rest;

	if (op->before)
		op->before();
	set_nth(nth);
	*result = op->call();
	rest = rest_of_nth();
	set_nth(0);
	if (op->after)
		op->after();
	return rest;
}

/* Is the allocation one of somebody else's, with many more like it? */
static bool is_foreign(const struct operation *op, int nth, int total)
{
	if (!strcmp(op->name, "insmod"))
		return nth < total - INIT_ALLOCATIONS;
	return strstr(op->name, "load") && nth > CONSTRUCTOR_ALLOCATIONS;
}

static int run(const struct operation *op)
{
	int result, survived = 0, faults = 0, nth, total = MANY - attempt(op, MANY, &result);

	if (result) {
		printf("%s fails without a fault\n", op->name);
		return 1;
	}
	for (nth = 1;; nth++) {
		if (is_foreign(op, nth, total))
			nth += STRIDE - 1;
		if (attempt(op, nth, &result))
			break;
		faults++;
		survived += !result;
	}
	if (result) {
		printf("%s fails without a fault\n", op->name);
		return 1;
	}
	printf("%s: %d faults, survived %d\n", op->name, faults, survived);
	return 0;
}

static void open_all(const char *name)
{
	int reference;

	nth_file = open("/proc/self/fail-nth", O_RDWR);
	if (nth_file < 0)
		err(2, "open /proc/self/fail-nth");
	control = open("/dev/mapper/control", O_RDWR);
	if (control < 0)
		err(2, "open /dev/mapper/control");
	if (strstr(name, "mod")) {
		module_file = open(args[0], O_RDONLY | O_CLOEXEC);
		if (module_file < 0)
			err(2, "open %s", args[0]);
	}
	if (!strcmp(name, "read")) {
		read_file = open(args[0], O_RDONLY);
		reference = open(args[1], O_RDONLY);
		if (read_file < 0 || reference < 0 ||
		    read(reference, wanted, READ_BYTES) != (ssize_t)READ_BYTES)
			err(2, "read %s", args[1]);
	}
}

int main(int argc, char **argv)
{
	for (const struct operation *op = operations; argc > 1 && op->name; op++) {
		if (strcmp(argv[1], op->name))
			continue;
		if (argc != op->argc + 2)
			break;
		args = argv + 2;
		open_all(argv[1]);
		return run(op);
	}
	fprintf(stderr, "fault-nth: unknown command : see the top of fault-nth.c\n");
	return 2;
}
