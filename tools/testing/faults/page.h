/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Pages that say themselves what they are: who wrote them, where in which file, and in
 * which generation. The rest of a page follows from that, so a page that is torn, stale or
 * somebody else's is told from a right one.
 */
#ifndef FAULT_PAGE_H
#define FAULT_PAGE_H

#include <err.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 4096ul
#define PAGE_WORDS (PAGE / sizeof(uint64_t))
#define PAGE_MAGIC 0x6472722d70616765ull

/* What a page's first words hold. */
struct page_name {
	uint64_t magic, writer, file, page, generation;
};

static inline uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static inline uint64_t page_seed(const struct page_name *name)
{
	return mix(mix(mix(mix(name->writer) + name->file) + name->page) + name->generation);
}

static inline void page_fill(void *data, uint64_t writer, uint64_t file, uint64_t page,
			     uint64_t generation)
{
	struct page_name name = { PAGE_MAGIC, writer, file, page, generation };
	uint64_t *words = data, seed = page_seed(&name);

	memcpy(words, &name, sizeof(name));
	for (size_t i = sizeof(name) / sizeof(*words); i < PAGE_WORDS; i++)
		words[i] = seed + i * 0x9e3779b97f4a7c15ull;
}

/* The generation of a page at this place, 0 if it is all zero, -1 if it is neither. */
static inline int64_t page_generation(const void *data, uint64_t writer, uint64_t file,
				      uint64_t page)
{
	static const uint64_t zeroes[PAGE_WORDS];
	uint64_t good[PAGE_WORDS];
	struct page_name name;

	memcpy(&name, data, sizeof(name));
	if (name.magic == PAGE_MAGIC) {
		page_fill(good, writer, file, page, name.generation);
		return memcmp(data, good, PAGE) ? -1 : (int64_t)name.generation;
	}
	return memcmp(data, zeroes, PAGE) ? -1 : 0;
}

/* What a page that is not what it should be seems to be. */
static inline void page_describe(const void *data)
{
	struct page_name name;

	memcpy(&name, data, sizeof(name));
	if (name.magic == PAGE_MAGIC)
		printf("it says: writer %llu file %llu page %llu generation %llu\n",
		       (unsigned long long)name.writer, (unsigned long long)name.file,
		       (unsigned long long)name.page, (unsigned long long)name.generation);
	else
		printf("it begins with %016llx %016llx\n", (unsigned long long)name.magic,
		       (unsigned long long)name.writer);
}

#endif /* FAULT_PAGE_H */
