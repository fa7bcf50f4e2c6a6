// SPDX-License-Identifier: GPL-2.0
/*
 * Asks a device-mapper device with a message, with buffers of every size from
 * too small for anything to more than enough. Where the answer fits it has to
 * be the whole one, where it doesn't the kernel has to say so; and nothing
 * behind the buffer is touched.
 *
 * usage: drr-short-buffers DEVICE MESSAGE
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define MOST	1048576
#define AFTER	64
#define CANARY	0xa5

static int control;
static const char *device, *text;

/* Asks with a buffer of so many bytes; false if that is too small. */
static bool ask(uint8_t *buffer, size_t size)
{
	struct dm_ioctl *head = (struct dm_ioctl *)buffer;
	struct dm_target_msg *message = (void *)(head + 1);

	memset(buffer, CANARY, size + AFTER);
	memset(head, 0, sizeof(*head));
	head->version[0] = DM_VERSION_MAJOR;
	head->data_size = size;
	head->data_start = sizeof(*head);
	snprintf(head->name, sizeof(head->name), "%s", device);
	message->sector = 0;
	strcpy(message->message, text);
	if (ioctl(control, DM_TARGET_MSG, buffer)) {
		fprintf(stderr, "'%s' with %zu bytes: %s\n", text, size, strerror(errno));
		exit(1);
	}
	for (size_t i = size; i < size + AFTER; i++) {
		if (buffer[i] != CANARY) {
			fprintf(stderr, "'%s' with %zu bytes: %zu behind them is changed\n",
				text, size, i - size);
			exit(1);
		}
	}
	return !(head->flags & DM_BUFFER_FULL_FLAG);
}

static const char *answer_in(const uint8_t *buffer)
{
	return (const char *)buffer + ((const struct dm_ioctl *)buffer)->data_start;
}

int main(int argc, char **argv)
{
	size_t least, size, full = 0, cut = 0, length;
	static uint8_t buffer[MOST + AFTER];
	char *whole;

	if (argc != 3) {
		fprintf(stderr, "usage: drr-short-buffers DEVICE MESSAGE\n");
		return 2;
	}
	device = argv[1];
	text = argv[2];
	control = open("/dev/mapper/control", O_RDWR);
	if (control < 0) {
		perror("/dev/mapper/control");
		return 1;
	}
	if (!ask(buffer, MOST)) {
		fprintf(stderr, "'%s': not even %d bytes are enough\n", text, MOST);
		return 1;
	}
	whole = strdup(answer_in(buffer));
	length = strlen(whole);
	/* room for the message itself has to be there */
	least = sizeof(struct dm_ioctl) + sizeof(struct dm_target_msg) + strlen(text) + 1;
	for (size = least; size < sizeof(struct dm_ioctl) + length + 1000; size++) {
		if (!ask(buffer, size)) {
			cut++;
			if (size > sizeof(struct dm_ioctl) + length + 600) {
				fprintf(stderr, "'%s': %zu bytes hold %zu and are too few\n", text,
					size, length);
				return 1;
			}
			continue;
		}
		full++;
		if (strcmp(answer_in(buffer), whole)) {
			fprintf(stderr, "'%s' with %zu bytes: not the whole answer\n", text, size);
			return 1;
		}
	}
	printf("%zu bytes of answer: %zu buffers too small, %zu large enough\n", length, cut, full);
	return !cut || !full;
}
