/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Interface of the device-mapper target "drr" to monitoring programs: messages
 * to a drr device (DM_TARGET_MSG, sector 0) that are answered with text.
 *
 * Asking takes CAP_SYS_ADMIN, as all of device-mapper does, and stops no I/O.
 * If DM_BUFFER_FULL_FLAG is set in the answer, ask again with a larger buffer;
 * libdevmapper and dmsetup do so by themselves.
 *
 * An answer is lines that end with a newline, the last one too, of words with
 * single spaces between them.  The first line is a title:
 *
 *	drr-NAME VERSION [KEY=VALUE]...
 *
 * Each further line is a record: its kind, then positional fields.  Fields are
 * decimal numbers, words without spaces, or "-" for none.  Within a version,
 * fields are only ever added, at the end of a line, and kinds of records, and
 * keys in the title: skip what you don't know.  VERSION counts up when that
 * can't be kept.
 *
 * Counters are 64 bits wide and only grow until the device's table is loaded
 * anew or it gets the message reset_stats.  All of an answer is counted while
 * I/O goes on: a figure may be a few requests ahead of another.
 *
 * A layer is a thin device of a pool.  As thin ids are used again, a layer has
 * a serial number, too, which is never used again while the module is loaded.
 */

#ifndef _UAPI_LINUX_DM_DRR_H
#define _UAPI_LINUX_DM_DRR_H

/*
 * "layers": the layers of the device's pool that the module knows, in no
 * particular order.
 *
 *	drr-layers 1 pool=POOL
 *	layer SERIAL THIN_ID PARENT CREATED STATE DEVICES
 *
 * PARENT	serial number of what it is a snapshot of; "-" if of nothing, or
 *		of something that isn't known
 * CREATED	the pool's time when it was created: a number that each snapshot
 *		in the pool increments
 * STATE	"live"; or "deleted", and kept as long as it has descendants
 * DEVICES	number of drr devices that are on it now
 */
#define DM_DRR_MSG_LAYERS	"layers"
#define DM_DRR_LAYERS_VERSION	1

/*
 * "heat": whose data was read through this device, and from where.
 *
 *	drr-heat 1 pool=POOL layer=SERIAL thin=THIN_ID
 *	read OWNER THIN_ID DISK_IOS DISK_SECTORS DRR_IOS DRR_SECTORS
 *	write IOS SECTORS
 *	donor SERIAL THIN_ID SECTORS
 *
 * read		reads of blocks that were written by the layer OWNER: those that
 *		went to the disk, and those that were served by drr.  OWNER and
 *		THIN_ID are "-" for reads whose owner can't be told: of blocks
 *		that are mapped nowhere, whose metadata is not in memory, or when
 *		there were too many owners to be told apart
 * write	writes, discards and write-zeroes; what is written is the
 *		device's own layer's from then on
 * donor	what was copied from page caches on the layer SERIAL; "-" for
 *		all those that were too many to be told apart
 *
 * Only what isn't zero is listed, but for "write".  The "read" lines add up to
 * the reads that the device's status counts.
 */
#define DM_DRR_MSG_HEAT		"heat"
#define DM_DRR_HEAT_VERSION	1

/*
 * "blocks": how often the pool's shared blocks were read, through all drr
 * devices of the pool.  Counting costs memory and time, and is off until the
 * message "blocks on"; "blocks off" ends it and forgets.  Both are for all
 * pools, and have no answer.
 *
 *	drr-blocks 1 pool=POOL state=STATE blocks=BLOCKS block_sectors=SECTORS missed=READS
 *	reads LOW HIGH BLOCKS
 *	layers LOW HIGH BLOCKS
 *
 * STATE	"on" or "off"
 * blocks	number of blocks that are counted
 * missed	reads that were not, as too many blocks were
 * reads	so many blocks were read at least LOW and at most HIGH times
 * layers	so many blocks were read by LOW to HIGH layers; HIGH is "-" for
 *		those that were read by more than can be told apart
 */
#define DM_DRR_MSG_BLOCKS	"blocks"
#define DM_DRR_BLOCKS_VERSION	1

/*
 * "duplicates": how many pages of the pool's shared blocks are cached, how often,
 * and by whom.  Told of all pages that drr knows; walks the whole table.
 *
 *	drr-duplicates 1 pool=POOL page_bytes=BYTES
 *	copies LOW HIGH PAGES
 *	layer SERIAL THIN_ID PAGES EXTRA
 *
 * copies	so many different pages of blocks are cached LOW to HIGH times; HIGH
 *		is "-" for no end
 * layer	so many pages are cached by the layer SERIAL; of EXTRA of these
 *		there is a newer copy.  "-" for layers that can't be told apart
 */
#define DM_DRR_MSG_DUPLICATES	"duplicates"
#define DM_DRR_DUPLICATES_VERSION	1

/*
 * "duplicates list [PLACE]": the pages that are cached more than once, in no
 * particular order, from PLACE of the table on; some thousands at a time.
 *
 *	drr-copies 1 pool=POOL
 *	copy BLOCK FIRST COUNT SERIAL THIN_ID
 *	next PLACE
 *
 * copy		the layer SERIAL has COUNT pages of the pool's data block BLOCK,
 *		from page FIRST on; there is such a line for each of the copies
 * next		ask again with this PLACE for the rest; "-" if this was all
 *
 * Pages come and go meanwhile: a page may be listed once only, or not at all.
 */
#define DM_DRR_MSG_LIST		"list"
#define DM_DRR_COPIES_VERSION	1

/*
 * "layer THIN_ID PARENT [CREATED]": declares what the module can't know, since it
 * was loaded later, without an answer.  PARENT is the thin id of a known layer,
 * or "-" for none.  A THIN_ID that isn't known is taken to exist if CREATED is
 * given.  Refused, with a line in the kernel log: unknown ids, a parent that was
 * created later or is a descendant, a parent where there is one already.
 *
 * "reset_stats": the device's counters start anew at zero.
 */
#define DM_DRR_MSG_LAYER	"layer"
#define DM_DRR_MSG_RESET_STATS	"reset_stats"

#endif /* _UAPI_LINUX_DM_DRR_H */
