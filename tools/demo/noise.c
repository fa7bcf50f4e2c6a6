// SPDX-License-Identifier: GPL-2.0
/*
 * noise BYTES: writes bytes that don't compress, the same each time, to stdout.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* xorshift64*, by Sebastiano Vigna */
static uint64_t next(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dull;
}

int main(int argc, char **argv)
{
	static uint64_t buffer[1 << 14];
	uint64_t state = 0x5bd1e995u;
	size_t left, now, i;

	if (argc != 2) {
		fprintf(stderr, "usage: noise BYTES\n");
		return 2;
	}
	for (left = strtoull(argv[1], NULL, 10); left; left -= now) {
		now = left < sizeof(buffer) ? left : sizeof(buffer);
		for (i = 0; i < sizeof(buffer) / sizeof(*buffer); i++)
			buffer[i] = next(&state);
		if (fwrite(buffer, 1, now, stdout) != now) {
			perror("noise");
			return 1;
		}
	}
	return 0;
}
