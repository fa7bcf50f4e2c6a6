// SPDX-License-Identifier: GPL-2.0
/*
 * Bad table lines and messages, in numbers, straight to device-mapper's ioctls.
 *
 *   drr-bad-input tables SEED COUNT THIN DEVICE...
 *	Loads COUNT tables of one or two drr targets on the thin device THIN into the
 *	inactive slots of the mapped devices.
 *
 *   drr-bad-input messages SEED COUNT DEVICE
 *	Sends COUNT messages to a drr device.
 *
 *   drr-bad-input bad-messages SEED COUNT DEVICE
 *	The same without those that are right.
 *
 *   drr-bad-input many-words COUNT THIN DEVICE
 *	A table line and a message of COUNT words each.
 *
 * Requests are right ones and variations of them. What must become of each is said by
 * rules of this program's own: device-mapper's for words and device numbers, and below
 * the features and messages that are documented. Ends with a line of figures; the exit
 * status is 1 if any request was refused or accepted wrongly.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "odd-line.h"

#define WORDS_MAX 8192

/* In the order that tables show them. */
static const char *const features[] = { "no_donate", "no_receive", "paranoid" };
static const char *const told[] = {
	"reset_stats", "layers", "heat", "blocks", "duplicates"
};

static const char *const messages[] = {
	"reset_stats", "layers", "heat", "blocks", "blocks on", "blocks off", "layer 7 -",
	"duplicates", "duplicates list", "duplicates list 9",
	"layer 7 3", "layer 16777215 - 4294967295",
};

static const char *const devices[] = {
	"/dev/mapper/pool", "/dev/mapper/nothing", "/dev/null", "/dev", "/", ".", "",
	"/dev/nullb0", "/dev/mapper/good", "/dev/mapper/control", "/proc/self/exe", "0:0",
	"1:1", "4095:1048575", "4096:0", "0:1048576", "252:", ":0", "252:0:0", "252.0",
	"-1:-1", "0xfc:0", "99999999999999999999:1", "/dev/loop0", "/dev/mapper/\xff",
};

static int control;
static unsigned long accepted, refused, wrong, by_errno[256];

/* --- what must become of it --- */

/* As the kernel has it: Latin-1's no-break space is one. */
static bool is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r') || c == '\xa0';
}

/*
 * Splits as device-mapper does: at spaces, and a backslash takes the meaning from
 * whatever follows. Returns how many there are, of which the first WORDS_MAX are kept.
 */
static size_t split(const char *text, char **argv)
{
	static char store[LINE_MAX_BYTES];
	char *out = store;
	size_t argc = 0;

	for (;;) {
		while (is_space(*text))
			text++;
		if (!*text)
			return argc;
		if (argc < WORDS_MAX)
			argv[argc] = out;
		argc++;
		while (*text && !is_space(*text)) {
			if (*text == '\\' && text[1])
				text++;
			*out++ = *text++;
		}
		*out++ = 0;
	}
}

/* A decimal number as the kernel's sscanf() reads "%u": too long ones wrap. */
static bool scan_u32(const char **text, uint32_t *number)
{
	while (is_space(**text))
		(*text)++;
	if (**text < '0' || **text > '9')
		return false;
	for (*number = 0; **text >= '0' && **text <= '9'; (*text)++)
		*number = *number * 10 + (**text - '0');
	return true;
}

static bool is_device(const char *path, dev_t device)
{
	const char *text = path;
	uint32_t major, minor;
	struct stat st;

	if (scan_u32(&text, &major) && *text++ == ':' && scan_u32(&text, &minor) && !*text)
		return major == major(device) && minor == minor(device);
	return !stat(path, &st) && S_ISBLK(st.st_mode) && st.st_rdev == device;
}

/* Says whether a line is right, and how it is shown then. */
static bool right_table(const char *text, dev_t thin, char *shown)
{
	static char *argv[WORDS_MAX];
	size_t argc = split(text, argv), given = 0;
	bool has[ELEMENTS(features)] = {};
	char *end;

	if (argc < 1 || argc > 2 + ELEMENTS(features) || !is_device(argv[0], thin))
		return false;
	if (argc > 1) {
		if (!*argv[1] || argv[1][strspn(argv[1], "0123456789")])
			return false;
		errno = 0;
		if (strtoull(argv[1], &end, 10) != argc - 2 || errno)
			return false;
	}
	for (size_t arg = 2; arg < argc; arg++) {
		size_t i = 0;

		while (i < ELEMENTS(features) && strcmp(features[i], argv[arg]))
			i++;
		if (i == ELEMENTS(features) || has[i])
			return false;
		has[i] = true;
		given++;
	}
	shown += sprintf(shown, "%u:%u", major(thin), minor(thin));
	if (given)
		shown += sprintf(shown, " %zu", given);
	for (size_t i = 0; i < ELEMENTS(features); i++)
		if (has[i])
			shown += sprintf(shown, " %s", features[i]);
	return true;
}

static bool is_number(const char *word, uint64_t below)
{
	return *word && !word[strspn(word, "0123456789")] && strtoull(word, NULL, 10) < below;
}

static bool right_message(const char *text)
{
	static char *argv[WORDS_MAX];
	size_t argc = split(text, argv);

	for (size_t i = 0; i < ELEMENTS(told); i++)
		if (argc == 1 && !strcmp(argv[0], told[i]))
			return true;
	if (argc >= 2 && !strcmp(argv[0], "duplicates") && !strcmp(argv[1], "list"))
		return argc == 2 || (argc == 3 && is_number(argv[2], 1ull << 32));
	return argc == 2 && !strcmp(argv[0], "blocks") &&
	       (!strcmp(argv[1], "on") || !strcmp(argv[1], "off"));
}

/* Well-formed; whether it is right depends on the layers that there are. */
static bool layer_message(const char *text)
{
	static char *argv[WORDS_MAX];
	size_t argc = split(text, argv);

	return (argc == 3 || argc == 4) && !strcmp(argv[0], "layer") &&
	       is_number(argv[1], 1 << 24) &&
	       (!strcmp(argv[2], "-") || is_number(argv[2], 1 << 24)) &&
	       (argc == 3 || is_number(argv[3], 1ull << 32));
}

/* --- device-mapper --- */

static union {
	struct dm_ioctl head;
	char room[sizeof(struct dm_ioctl) + 2 * (sizeof(struct dm_target_spec) +
						 LINE_MAX_BYTES + 8)];
} request;
static size_t request_len;

static void start_request(const char *device)
{
	memset(&request.head, 0, sizeof(request.head));
	request.head.version[0] = DM_VERSION_MAJOR;
	request.head.data_start = sizeof(request.head);
	snprintf(request.head.name, sizeof(request.head.name), "%s", device);
	request_len = sizeof(request.head);
}

/* Adds something to the request, at a multiple of eight bytes. */
static void *add(const void *bytes, size_t len)
{
	void *to = request.room + request_len;

	memcpy(to, bytes, len);
	memset(to + len, 0, 8);
	request_len = (request_len + len + 7) & ~7ul;
	return to;
}

/* Room for answers is kept. Returns zero or the error. */
static int send_request(unsigned long command)
{
	if (request_len < 16384)
		request_len = 16384;
	request.head.data_size = request_len;
	return ioctl(control, command, &request) ? errno : 0;
}

static void add_target(uint64_t start, uint64_t length, const char *text)
{
	struct dm_target_spec *spec = add(&(struct dm_target_spec) {
		.sector_start = start, .length = length, .target_type = "drr",
	}, sizeof(*spec));

	add(text, strlen(text) + 1);
	spec->next = request.room + request_len - (char *)spec;
	request.head.target_count++;
}

/* Prints a request so that it can be looked at. */
static void show(const char *what, const char *text, unsigned long number)
{
	fprintf(stderr, "request %lu %s: \"", number, what);
	for (size_t i = 0; text[i] && i < 400; i++) {
		unsigned char byte = text[i];

		fprintf(stderr, byte < ' ' || byte > '~' || byte == '"' ? "\\x%02x" : "%c", byte);
	}
	fprintf(stderr, "\" (%zu bytes)\n", strlen(text));
}

/* Compares what became of a request with what should have. */
static void judge(bool right, int error, const char *text, unsigned long number)
{
	if (error)
		by_errno[error < 256 ? error : 255]++;
	if (right == !error) {
		(*(right ? &accepted : &refused))++;
		return;
	}
	wrong++;
	show(right ? "should be accepted and is refused" :
	     "should be refused and is accepted", text, number);
	if (error)
		fprintf(stderr, "error: %s\n", strerror(error));
}

static int end(const char *what)
{
	printf("%s: %lu refused, %lu accepted, %lu wrong;", what, refused, accepted, wrong);
	for (size_t i = 0; i < ELEMENTS(by_errno); i++)
		if (by_errno[i])
			printf(" %s %lu", strerrorname_np(i), by_errno[i]);
	printf("\n");
	return wrong != 0;
}

/* --- tables --- */

/* The thin device under one of its names. */
static void put_thin(const char *thin, dev_t device)
{
	char text[64];

	switch (below(8)) {
	case 0:
		snprintf(text, sizeof(text), "%u:%u", major(device), minor(device));
		put(text);
		break;
	case 1:
		put("/dev/mapper/../mapper/./");
		put(strrchr(thin, '/') + 1);
		break;
	case 2:
		snprintf(text, sizeof(text), "%llu:0%u", (1ull << 32) + major(device),
			 minor(device));
		put(text);
		break;
	default:
		put(thin);
	}
}

static void put_features(size_t most)
{
	bool has[ELEMENTS(features)] = {};
	size_t count = below(most + 1);

	put_number(count);
	while (count--) {
		size_t i = below(ELEMENTS(features));

		while (has[i])
			i = (i + 1) % ELEMENTS(features);
		has[i] = true;
		put_word(features[i]);
	}
}

static void make_table(const char *thin, dev_t device)
{
	size_t count;

	line_len = 0;
	line[0] = 0;
	switch (below(16)) {
	case 0:	/* not the device */
		put(pick(devices, ELEMENTS(devices)));
		if (one_in(2))
			put_features(ELEMENTS(features));
		break;
	case 1:	/* nothing of it is right */
		put_binary(below(200));
		break;
	case 2:	/* a wrong number */
		put_thin(thin, device);
		put_number(one_in(2) ? (long long)random_u64() : (long long)below(5) - 1);
		for (count = below(4); count; count--)
			put_word(pick(features, ELEMENTS(features)));
		break;
	case 3:	/* too many, or twice */
		put_thin(thin, device);
		count = one_in(100) ? 1000 + below(9000) : below(8);
		put_number(count);
		while (count--)
			put_word(pick(features, ELEMENTS(features)));
		break;
	case 4:	/* odd words, the right number of them */
	case 5:
		put_thin(thin, device);
		count = below(5);
		put_number(count);
		while (count--)
			put_odd_word();
		break;
	case 6:
		put_thin(thin, device);
		for (count = below(5); count; count--)
			put_odd_word();
		break;
	case 7:	/* a right one, now and then */
		put_thin(thin, device);
		put_features(ELEMENTS(features));
		if (!one_in(10))
			put_number(1);
		break;
	default:
		put_thin(thin, device);
		put_features(ELEMENTS(features));
		mutate();
	}
}

/* The table that is loaded, and not active, must read like `want`. */
static void check_shown(const char *device, const char *want, unsigned long number)
{
	struct dm_target_spec *spec;
	const char *got;

	start_request(device);
	request.head.flags = DM_STATUS_TABLE_FLAG | DM_QUERY_INACTIVE_TABLE_FLAG;
	if (send_request(DM_TABLE_STATUS))
		err(2, "status of %s", device);
	spec = (void *)(request.room + request.head.data_start);
	got = (char *)(spec + 1);
	if (request.head.target_count && !strcmp(got, want))
		return;
	wrong++;
	show("is shown as", request.head.target_count ? got : "(no target)", number);
	show("should be shown as", want, number);
}

static int tables(unsigned long count, const char *thin, char **names, size_t names_count)
{
	static char first[LINE_MAX_BYTES];
	char shown[128], shown_second[128];
	uint64_t sectors, length;
	struct stat st;
	int fd = open(thin, O_RDONLY), error;

	if (fd < 0 || fstat(fd, &st) || lseek(fd, 0, SEEK_END) < 0)
		err(2, "%s", thin);
	sectors = lseek(fd, 0, SEEK_END) / 512;
	close(fd);
	for (unsigned long i = 0; i < count; i++) {
		const char *device = names[below(names_count)];
		const uint64_t odd[] = { 0, sectors + 1, sectors + 128, 1ull << 40, 1ull << 55,
					 1ull << 63, UINT64_MAX, random_u64() | sectors };
		bool right, two = one_in(40);
		uint64_t start = one_in(200) ? 1 + below(sectors) : 0;

		length = one_in(4) ? 1 + below(sectors) : sectors;
		if (one_in(30))
			length = odd[below(ELEMENTS(odd))];
		start_request(device);
		if (one_in(4))
			request.head.flags = DM_READONLY_FLAG;
		right = !start && length && length <= sectors;
		if (two) {
			/* a good target, which has to go again if the other is bad */
			line_len = 0;
			put_thin(thin, st.st_rdev);
			if (one_in(2))
				put_features(ELEMENTS(features));
			memcpy(first, line, line_len + 1);
			right &= right_table(first, st.st_rdev, shown);
			add_target(start, length, first);
			start += length;
			length = one_in(4) ? odd[below(ELEMENTS(odd))] : 128;
			right &= length && length <= sectors;
		}
		make_table(thin, st.st_rdev);
		right &= right_table(line, st.st_rdev, two ? shown_second : shown);
		add_target(start, length, line);
		error = send_request(DM_TABLE_LOAD);
		judge(right, error, line, i);
		if (error)
			continue;
		if (right)
			check_shown(device, shown, i);
		start_request(device);
		if (send_request(DM_TABLE_CLEAR))
			err(2, "clear the table of %s", device);
	}
	return end("tables");
}

/* --- messages --- */

static void make_message(void)
{
	size_t count;

	line_len = 0;
	line[0] = 0;
	switch (below(8)) {
	case 0:
		put_binary(below(200));
		break;
	case 1:
		for (count = one_in(100) ? 1000 + below(9000) : below(8); count; count--)
			put_odd_word();
		break;
	case 2:
		put_odd_word();
		break;
	case 3:
		put(pick(messages, ELEMENTS(messages)));
		for (count = 1 + below(3); count; count--)
			put_odd_word();
		break;
	case 4:
		put(pick(messages, ELEMENTS(messages)));
		break;
	default:
		put(pick(messages, ELEMENTS(messages)));
		mutate();
	}
}

/* Sectors that no target is at, too. */
static uint64_t message_sector(void)
{
	static const uint64_t odd[] = { 1ull << 40, 1ull << 63, UINT64_MAX };

	return one_in(30) ? odd[below(ELEMENTS(odd))] : 0;
}

static int send_message(const char *device, uint64_t sector)
{
	struct dm_target_msg *message;

	start_request(device);
	message = add(&(struct dm_target_msg) { .sector = sector }, sizeof(*message));
	/* the text follows the sector at once */
	request_len = message->message - request.room;
	add(line, line_len + 1);
	return send_request(DM_TARGET_MSG);
}

static int send_messages(unsigned long count, const char *device, bool only_bad)
{
	for (unsigned long i = 0; i < count;) {
		uint64_t sector = message_sector();
		bool right;

		make_message();
		right = right_message(line) && !sector;
		if ((right || layer_message(line)) && only_bad)
			continue;
		if (layer_message(line) && !sector)
			send_message(device, sector);
		else
			judge(right, send_message(device, sector), line, i);
		i++;
	}
	return end(only_bad ? "bad messages" : "messages");
}

/* --- lines of very many words --- */

static int many_words(unsigned long count, const char *thin, const char *device)
{
	line_len = 0;
	put(thin);
	put_number(count);
	for (unsigned long i = 0; i < count; i++)
		put(" x");
	start_request(device);
	add_target(0, 8, line);
	judge(false, send_request(DM_TABLE_LOAD), line, 0);
	judge(false, send_message(device, 0), line, 1);
	return end("many words");
}

int main(int argc, char **argv)
{
	const char *kind = argc > 1 ? argv[1] : "";
	unsigned long count;

	control = open("/dev/mapper/control", O_RDWR);
	if (control < 0)
		err(2, "open /dev/mapper/control");
	if (argc == 5 && !strcmp(kind, "many-words"))
		return many_words(strtoul(argv[2], NULL, 0), argv[3], argv[4]);
	if (argc < 5) {
		fprintf(stderr, "usage: see the head of drr-bad-input.c\n");
		return 2;
	}
	random_state = strtoull(argv[2], NULL, 0);
	count = strtoul(argv[3], NULL, 0);
	if (argc > 5 && !strcmp(kind, "tables"))
		return tables(count, argv[4], argv + 5, argc - 5);
	if (argc == 5 && !strcmp(kind, "messages"))
		return send_messages(count, argv[4], false);
	if (argc == 5 && !strcmp(kind, "bad-messages"))
		return send_messages(count, argv[4], true);
	fprintf(stderr, "usage: see the head of drr-bad-input.c\n");
	return 2;
}
