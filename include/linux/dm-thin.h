/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Interface of the thin provisioning target for targets that are stacked on
 * top of a thin device: where a sector is mapped, and what happens to mappings.
 */

#ifndef _LINUX_DM_THIN_H
#define _LINUX_DM_THIN_H

#include <linux/types.h>

struct block_device;
struct notifier_block;

/*
 * Names a thin device node, not a table: it stays valid across table reloads
 * and never delays the destruction of a thin target by more than a lookup.
 */
struct dm_thin_handle;

/**
 * struct dm_thin_mapping - where a sector of a thin device is mapped
 * @pool_id:	the pool; never reused while the module is loaded
 * @data_block:	the pool's data block that holds the sector
 * @binding:	the activation of the table that answered, see dm_thin_binding()
 * @thin_id:	the thin device's id within the pool
 * @time:	the pool's time when the block was mapped (bumped by each snapshot)
 * @block_sectors: size of a data block in sectors
 * @shared:	other thin devices may map the data block too.  Never turns
 *		false again for a given mapping; a shared block is never
 *		written in place.
 */
struct dm_thin_mapping {
	u64 pool_id;
	u64 data_block;
	u64 binding;
	u32 thin_id;
	u32 time;
	u32 block_sectors;
	bool shared;
};

/**
 * struct dm_thin_info - what a thin device is
 * @pool_id:	as in struct dm_thin_mapping
 * @mapped_sectors: number of sectors that are mapped
 * @highest_sector: highest mapped sector; meaningless if none is mapped
 * @thin_id:	as in struct dm_thin_mapping
 * @creation_time: the pool's time when the thin device was created
 * @block_sectors: as in struct dm_thin_mapping
 */
struct dm_thin_info {
	u64 pool_id;
	u64 mapped_sectors;
	u64 highest_sector;
	u32 thin_id;
	u32 creation_time;
	u32 block_sectors;
};

/*
 * Events, all sent from process context; a callback may sleep but must not
 * wait for I/O to a thin device of the same pool, nor unregister a notifier.
 */
enum dm_thin_event {
	/* @thin_id was created, at @time */
	DM_THIN_CREATED,
	/* @thin_id was created as a snapshot of @origin_id, at @time */
	DM_THIN_SNAPSHOT_CREATED,
	/* @thin_id was deleted */
	DM_THIN_DELETED,
	/*
	 * Virtual blocks [@begin, @end) of @thin_id no longer map the data
	 * blocks they did: a write broke sharing, or a discard unmapped them.
	 * Sent after the mapping changed, and before any data block that this
	 * freed is allocated again.
	 */
	DM_THIN_SHARING_BROKEN,
	DM_THIN_DISCARDED,
	/*
	 * @data_block was allocated and is about to be filled anew.  Sent
	 * before anything can be read from it through its new mapping.
	 */
	DM_THIN_BLOCK_ALLOCATED,
	/* the metadata was rolled back: nothing known of the pool holds */
	DM_THIN_ABORTED,
};

/* What the callback of a notifier_block gets; fields not named above are 0. */
struct dm_thin_event_data {
	u64 pool_id;
	u64 begin;
	u64 end;
	u64 data_block;
	u32 thin_id;
	u32 origin_id;
	u32 time;
};

/*
 * The caller holds @bdev open until it closes the handle.
 *
 * Returns -ENODEV if @bdev is not a device-mapper device, -EINVAL if it is
 * not a single thin target, -EAGAIN if it has none that is active yet, or is
 * suspended, be it by its pool, -ENOMEM.
 */
struct dm_thin_handle *dm_thin_open(struct block_device *bdev);
void dm_thin_close(struct dm_thin_handle *h);

/*
 * Looks @sector up, in process context.  With @may_block metadata is read
 * from disk if need be; without, no I/O is issued.  Either may sleep, as the
 * thin target's map does, until a commit of the metadata is done.
 *
 * Returns -EWOULDBLOCK if metadata would have to be read, -ENODATA if the
 * sector is not mapped, -ENXIO while the device is suspended or has no active
 * thin target, -ERANGE beyond its end, -EIO or -EINVAL if the metadata can't
 * be read.
 */
int dm_thin_lookup(struct dm_thin_handle *h, sector_t sector, bool may_block,
		   struct dm_thin_mapping *m);

/*
 * The current activation of the device's thin table, from any context: a
 * number that is never reused, 0 while there is none.  I/O that was submitted
 * after a lookup and completes while the binding is still the same went
 * through the thin target that the lookup asked.
 */
u64 dm_thin_binding(struct dm_thin_handle *h);

/* Returns -ENXIO and the errors of a metadata read as dm_thin_lookup() does. */
int dm_thin_get_info(struct dm_thin_handle *h, struct dm_thin_info *info);

/* Events of all pools, see enum dm_thin_event. */
int dm_thin_register_notifier(struct notifier_block *nb);
int dm_thin_unregister_notifier(struct notifier_block *nb);

#endif /* _LINUX_DM_THIN_H */
