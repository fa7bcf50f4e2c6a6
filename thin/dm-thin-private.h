/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What dm-thin-hooks.c uses of device-mapper, of dm-thin and of the modules
 * that dm-thin stands on, and what no header in include/linux declares.
 */

#ifndef DM_THIN_PRIVATE_H
#define DM_THIN_PRIVATE_H

#include <linux/bio.h>
#include <linux/completion.h>
#include <linux/device-mapper.h>
#include <linux/refcount.h>
#include <linux/rwsem.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/workqueue.h>

struct dm_bio_prison;
struct dm_bio_prison_cell;
struct dm_pool_metadata;
struct dm_thin_device;
struct pool;

/* Structures of dm-thin and dm-mod, as the modules themselves describe them */
#include "layout_generated.h"

/* drivers/md/persistent-data/dm-block-manager.h, drivers/md/dm-thin-metadata.h */
#define dm_block_t u64
#define dm_thin_id u64

/* drivers/md/dm.h */
void dm_internal_suspend_noflush(struct mapped_device *md);
void dm_internal_resume(struct mapped_device *md);

/* drivers/md/persistent-data/dm-btree.h; @info is a struct dm_btree_info */
int dm_btree_lookup(void *info, dm_block_t root, u64 *keys, void *value_le);
int dm_btree_find_highest_key(void *info, dm_block_t root, u64 *result_keys);

/* drivers/md/dm-bio-prison-v1.h */
void dm_cell_release_no_holder(struct dm_bio_prison *prison, struct dm_bio_prison_cell *cell,
			       struct bio_list *inmates);
void dm_bio_prison_free_cell(struct dm_bio_prison *prison, struct dm_bio_prison_cell *cell);

#endif /* DM_THIN_PRIVATE_H */
