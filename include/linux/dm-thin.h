/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Interface of the thin provisioning target for targets that are stacked on
 * top of a thin device: where a sector is mapped, and what happens to mappings.
 */

#ifndef _LINUX_DM_THIN_H
#define _LINUX_DM_THIN_H

#include <linux/types.h>

/* To be changed with whatever is below; exported as dm_thin_interface. */
#define DM_THIN_INTERFACE 2

struct block_device;
struct notifier_block;

extern const unsigned int dm_thin_interface;

/*
 * Names a thin device node, not a table: it stays valid across table reloads
 * and never delays the destruction of a thin target by more than a lookup.
 */
struct dm_thin_handle;

/**
 * struct dm_thin_mapping - where a sector of a thin device is mapped
 * @pool_id:	the activation of the pool; never reused while the module is loaded
 * @data_block:	the pool's data block that holds the sector
 * @binding:	the activation of the table that answered, see dm_thin_binding()
 * @thin_id:	the thin device's id within the pool
 * @time:	the pool's time when the block was mapped (bumped by each snapshot)
 * @block_sectors: size of a data block in sectors
 * @shared:	other thin devices may map the data block too.  Never turns
 *		false again for a given mapping; a shared block is never
 *		written in place.
 * @changing:	a change of some mapping of the pool was under way: a notifier that
 *		was registered before is told of all changes once this was false
 *
 * @pool_id, @data_block and @time name one content for ever, among the devices
 * that see the block as shared: each has been snapshotted after @time, and what
 * is mapped to the block once they are gone is mapped at a later time.
 */
struct dm_thin_mapping {
	u64 pool_id;
	u64 data_block;
	u64 binding;
	u32 thin_id;
	u32 time;
	u32 block_sectors;
	bool shared;
	bool changing;
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
	/*
	 * @thin_id is to be deleted, which fails because the device with @uuid
	 * has it open.  NOTIFY_STOP says that this device is about to close it:
	 * the deletion is tried again, for a second.
	 */
	DM_THIN_BUSY,
	/* @thin_id was deleted */
	DM_THIN_DELETED,
	/*
	 * Virtual blocks [@begin, @end) of @thin_id are about to be mapped
	 * elsewhere or unmapped; and the same when that is done or has failed,
	 * before any bio that caused it completes.  Both come from the pool's
	 * worker, always in pairs, and pairs of one pool don't overlap.
	 */
	DM_THIN_MAPPING_CHANGES,
	DM_THIN_MAPPING_CHANGED,
	/*
	 * Nothing known of the pool holds, as its metadata is about to be
	 * rolled back, or as there are 2^24 - 1 snapshots.  dm_thin_lookup()
	 * returns -ESTALE already.
	 */
	DM_THIN_ABORTED,
	/* The pool is not active any more */
	DM_THIN_POOL_GONE,
};

/* What the callback of a notifier_block gets; fields not named above are 0. */
struct dm_thin_event_data {
	u64 pool_id;
	u64 begin;
	u64 end;
	const char *uuid;
	u32 thin_id;
	u32 origin_id;
	u32 time;
};

/*
 * The handle is valid for as long as the caller holds @bdev open.  Process
 * context; may wait for I/O of the pool.
 *
 * Returns -EOPNOTSUPP if the loaded dm-thin has no such interface, -ENODEV if
 * @bdev is not a device-mapper device, -EINVAL if it is not a single thin
 * target, -EAGAIN if it has none that is active yet, or is suspended, be it by
 * its pool, and -ENOMEM.
 */
struct dm_thin_handle *dm_thin_get_handle(struct block_device *bdev);

/*
 * Looks @sector up, in process context.  With @may_block metadata is read
 * from disk if need be; without, no I/O is issued.  Either may sleep, as the
 * thin target's map does, until a commit of the metadata is done.
 *
 * Returns -EWOULDBLOCK if metadata would have to be read, -ENODATA if the
 * sector is not mapped, -ENXIO while the device is suspended or has no active
 * thin target, -ERANGE beyond its end, -EIO or -EINVAL if the metadata can't
 * be read.  Returns -ESTALE for what is mapped once mappings don't name
 * contents any more: when the metadata is rolled back, and after 2^24 - 1
 * snapshots.  That lasts until the pool is activated anew.
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

/*
 * Whether a write that needs a new block can be expected to get one, from any
 * context: the pool isn't read-only, failed or known to be out of space.
 */
bool dm_thin_writable(struct dm_thin_handle *h);

/* Returns -ENXIO and the errors of a metadata read as dm_thin_lookup() does. */
int dm_thin_get_info(struct dm_thin_handle *h, struct dm_thin_info *info);

/* Events of all pools, see enum dm_thin_event. */
int dm_thin_register_notifier(struct notifier_block *nb);
int dm_thin_unregister_notifier(struct notifier_block *nb);

#endif /* _LINUX_DM_THIN_H */
