/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM drr

#if !defined(_TRACE_DRR_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_DRR_H

#include <linux/kdev_t.h>
#include <linux/tracepoint.h>

/*
 * Documentation/admin-guide/device-mapper/drr.rst describes the fields.  All of
 * them are called from rust/drr/trace.rs only; reason comes as a Rust string, which
 * has a length and no zero at its end.
 */

DECLARE_EVENT_CLASS(drr_bio,
	TP_PROTO(u32 dev, u32 thin_id, u64 sector, u32 nr_sector),
	TP_ARGS(dev, thin_id, sector, nr_sector),

	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u32, thin_id)
		__field(u64, sector)
		__field(u32, nr_sector)
	),

	TP_fast_assign(
		__entry->dev = dev;
		__entry->thin_id = thin_id;
		__entry->sector = sector;
		__entry->nr_sector = nr_sector;
	),

	TP_printk("dev %u,%u thin %u sector %llu + %u",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->thin_id,
		  __entry->sector, __entry->nr_sector)
);

/* A read waits for another's read of the same, from here on. */
DEFINE_EVENT(drr_bio, drr_follow,
	TP_PROTO(u32 dev, u32 thin_id, u64 sector, u32 nr_sector),
	TP_ARGS(dev, thin_id, sector, nr_sector)
);

/* All of a block is written in the place of this part of it. */
DEFINE_EVENT(drr_bio, drr_whole_write,
	TP_PROTO(u32 dev, u32 thin_id, u64 sector, u32 nr_sector),
	TP_ARGS(dev, thin_id, sector, nr_sector)
);

/* A read is served; from several donors perhaps, of which this is the first. */
TRACE_EVENT(drr_hit,
	TP_PROTO(u32 dev, u32 thin_id, u64 sector, u32 nr_sector,
		 u32 donor_dev, u32 donor_thin_id, u32 donors),
	TP_ARGS(dev, thin_id, sector, nr_sector, donor_dev, donor_thin_id,
		donors),

	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u32, thin_id)
		__field(u64, sector)
		__field(u32, nr_sector)
		__field(dev_t, donor_dev)
		__field(u32, donor_thin_id)
		__field(u32, donors)
	),

	TP_fast_assign(
		__entry->dev = dev;
		__entry->thin_id = thin_id;
		__entry->sector = sector;
		__entry->nr_sector = nr_sector;
		__entry->donor_dev = donor_dev;
		__entry->donor_thin_id = donor_thin_id;
		__entry->donors = donors;
	),

	TP_printk("dev %u,%u thin %u sector %llu + %u donor %u,%u thin %u of %u",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->thin_id,
		  __entry->sector, __entry->nr_sector,
		  MAJOR(__entry->donor_dev), MINOR(__entry->donor_dev),
		  __entry->donor_thin_id, __entry->donors)
);

/* A read goes to the disk; reason is the word of the status after "miss_". */
TRACE_EVENT(drr_miss,
	TP_PROTO(u32 dev, u32 thin_id, u64 sector, u32 nr_sector,
		 const char *reason, u32 reason_len),
	TP_ARGS(dev, thin_id, sector, nr_sector, reason, reason_len),

	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u32, thin_id)
		__field(u64, sector)
		__field(u32, nr_sector)
		__string_len(reason, reason, reason_len)
	),

	TP_fast_assign(
		__entry->dev = dev;
		__entry->thin_id = thin_id;
		__entry->sector = sector;
		__entry->nr_sector = nr_sector;
		__assign_str(reason);
	),

	TP_printk("dev %u,%u thin %u sector %llu + %u %s",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->thin_id,
		  __entry->sector, __entry->nr_sector, __get_str(reason))
);

/* Pages that a read has filled can donate now. */
TRACE_EVENT(drr_record,
	TP_PROTO(u32 dev, u32 thin_id, u64 pool, u64 block, u32 page,
		 u32 nr_pages),
	TP_ARGS(dev, thin_id, pool, block, page, nr_pages),

	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u32, thin_id)
		__field(u64, pool)
		__field(u64, block)
		__field(u32, page)
		__field(u32, nr_pages)
	),

	TP_fast_assign(
		__entry->dev = dev;
		__entry->thin_id = thin_id;
		__entry->pool = pool;
		__entry->block = block;
		__entry->page = page;
		__entry->nr_pages = nr_pages;
	),

	TP_printk("dev %u,%u thin %u pool %llu block %llu page %u + %u",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->thin_id,
		  __entry->pool, __entry->block, __entry->page,
		  __entry->nr_pages)
);

/* Pages donate no longer; reason is the word of the status after "ended_". */
TRACE_EVENT(drr_record_end,
	TP_PROTO(u32 dev, u32 thin_id, u64 pool, u64 block, u32 page, u32 pages,
		 const char *reason, u32 reason_len),
	TP_ARGS(dev, thin_id, pool, block, page, pages, reason, reason_len),

	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u32, thin_id)
		__field(u64, pool)
		__field(u64, block)
		__field(u32, page)
		__field(u32, pages)
		__string_len(reason, reason, reason_len)
	),

	TP_fast_assign(
		__entry->dev = dev;
		__entry->thin_id = thin_id;
		__entry->pool = pool;
		__entry->block = block;
		__entry->page = page;
		__entry->pages = pages;
		__assign_str(reason);
	),

	TP_printk("dev %u,%u thin %u pool %llu block %llu page %u pages 0x%x %s",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->thin_id,
		  __entry->pool, __entry->block, __entry->page, __entry->pages,
		  __get_str(reason))
);

#endif /* _TRACE_DRR_H */

/* This part must be outside protection */
#include <trace/define_trace.h>
