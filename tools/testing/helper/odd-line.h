/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A line of words by chance: some that look like something, numbers in odd forms, bytes,
 * and changes to what is there.  The same seed makes the same lines.
 */
#ifndef ODD_LINE_H
#define ODD_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define LINE_MAX_BYTES (4u << 20)
#define ELEMENTS(array) (sizeof(array) / sizeof((array)[0]))

/* Words that look like something. */
static const char *const words[] = {
	"0", "1", "2", "3", "4", "-1", "+1", "01", "0x1", "1.0", "18446744073709551615",
	"18446744073709551616", "4294967297", "-9223372036854775808", "1e3", "NaN", "%s%n",
	"%p", "no_donat", "no_donatee", "NO_RECEIVE", "Paranoid", "no-donate", "layer",
	"reset", "reset_stats", "RESET_STATS", "layers", "heat", "blocks", "on", "off", "-",
	"duplicates", "list", "reset_stats\\ now", "stats", "hold", "help",
	"@", "@@", "@stats", "\\", "\\\\", "\\ ", "\"", "''", "$HOME", "`id`", "\xff\xfe",
	"\xc3\x28", "\xc3\xa4", "\xa0", "\x7f", "\x01", "\x1b[2J", "=", "a=b", ",", ";", "#",
};

/* The seed at first. */
static uint64_t random_state;

/* A request's text, and what it may grow to. */
static char line[LINE_MAX_BYTES];
static size_t line_len;

/* --- chance --- */

/* splitmix64 */
static uint64_t random_u64(void)
{
	uint64_t z = random_state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static size_t below(size_t limit)
{
	return random_u64() % limit;
}

static bool one_in(size_t n)
{
	return !below(n);
}

static const char *pick(const char *const *array, size_t elements)
{
	return array[below(elements)];
}

/* --- what a request is made of --- */

static void put_bytes(const char *bytes, size_t len)
{
	if (len > LINE_MAX_BYTES - 1 - line_len)
		len = LINE_MAX_BYTES - 1 - line_len;
	memcpy(line + line_len, bytes, len);
	line_len += len;
	line[line_len] = 0;
}

static void put(const char *text)
{
	put_bytes(text, strlen(text));
}

static void put_word(const char *word)
{
	put(one_in(50) ? "\t\n " : " ");
	put(word);
}

static void put_number(long long number)
{
	static const char *const forms[] = { "+%lld", "0%lld", "%lld.", "%lld\\ ", "#%lld" };
	char text[32];

	snprintf(text, sizeof(text), one_in(20) ? pick(forms, ELEMENTS(forms)) : "%lld", number);
	put_word(text);
}

static void put_binary(size_t len)
{
	while (len--) {
		char byte = 1 + below(255);

		put_bytes(&byte, 1);
	}
}

/* Changes a few bytes anywhere, or a range. */
static void mutate(void)
{
	size_t at, len;

	for (size_t times = 1 + below(3); times && line_len; times--) {
		at = below(line_len);
		len = 1 + below(8);
		if (len > line_len - at)
			len = line_len - at;
		switch (below(5)) {
		case 0:
			line[at] ^= 1 << below(8);
			break;
		case 1:
			line[at] = 1 + below(255);
			break;
		case 2:	/* less */
			memmove(line + at, line + at + len, line_len - at - len);
			line_len -= len;
			break;
		case 3:	/* twice */
			memmove(line + at + len, line + at, line_len - at);
			line_len += len;
			break;
		case 4:	/* cut */
			line_len = at;
			break;
		}
		line[line_len] = 0;
	}
	/* a flipped bit may have made an early end */
	line_len = strlen(line);
}

/* One in hundreds of words is long, one in thousands very. */
static void put_odd_word(void)
{
	switch (below(300)) {
	case 0:
		put(" ");
		put_binary(1 + below(300));
		break;
	case 1:
		put(" ");
		for (size_t len = one_in(10) ? 1 << 16 : 5000; len; len--)
			put("x");
		break;
	default:
		put_word(pick(words, ELEMENTS(words)));
	}
}

#endif /* ODD_LINE_H */
