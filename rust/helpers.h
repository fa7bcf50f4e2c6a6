/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Wrappers of inline functions and macros that Rust can't call directly. Each
 * wraps one facility of the kernel and has no policy of its own.
 */

#ifndef _DM_RUST_HELPERS_H
#define _DM_RUST_HELPERS_H

#include <linux/bio.h>
#include <linux/cacheflush.h>
#include <linux/device-mapper.h>
#include <linux/dm-thin.h>
#include <linux/pagemap.h>
#include <linux/percpu.h>
#include <linux/ratelimit.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

/* Macros with casts, which bindgen does not evaluate. */
enum {
	DM_RUST_MAPIO_SUBMITTED = DM_MAPIO_SUBMITTED,
	DM_RUST_MAPIO_REMAPPED = DM_MAPIO_REMAPPED,
	DM_RUST_MAPIO_REQUEUE = DM_MAPIO_REQUEUE,
	DM_RUST_MAPIO_KILL = DM_MAPIO_KILL,
	DM_RUST_ENDIO_DONE = DM_ENDIO_DONE,
	DM_RUST_ENDIO_INCOMPLETE = DM_ENDIO_INCOMPLETE,
	DM_RUST_ENDIO_REQUEUE = DM_ENDIO_REQUEUE,
	DM_RUST_STS_OK = 0,
	DM_RUST_STS_IOERR = BLK_STS_IOERR,
	DM_RUST_STS_REQUEUE = BLK_STS_DM_REQUEUE,
	DM_RUST_OP_READ = REQ_OP_READ,
	DM_RUST_OP_WRITE = REQ_OP_WRITE,
	DM_RUST_OP_FLUSH = REQ_PREFLUSH,
	DM_RUST_OP_DISCARD = REQ_OP_DISCARD,
	DM_RUST_OP_SECURE_ERASE = REQ_OP_SECURE_ERASE,
	DM_RUST_OP_WRITE_ZEROES = REQ_OP_WRITE_ZEROES,
	DM_RUST_OP_MASK = REQ_OP_MASK,
	DM_RUST_POLLED = REQ_POLLED,
	DM_RUST_META = REQ_META,
	/* Flags that a read issued on behalf of another keeps. */
	DM_RUST_READ_FLAGS = REQ_SYNC | REQ_META | REQ_PRIO | REQ_RAHEAD | REQ_IDLE |
			     REQ_BACKGROUND,
	/* Flags that a write issued on behalf of another keeps. */
	DM_RUST_WRITE_FLAGS = REQ_SYNC | REQ_META | REQ_PRIO | REQ_IDLE | REQ_FUA | REQ_BACKGROUND |
			      REQ_SWAP,
	/*
	 * Flags of writes that another write can't replace, or not profitably.
	 */
	DM_RUST_SPECIAL_WRITE = REQ_PREFLUSH | REQ_ATOMIC | REQ_POLLED,
	DM_RUST_BIO_MAX_VECS = BIO_MAX_VECS,
	DM_RUST_FLUSHES_DCACHE = ARCH_IMPLEMENTS_FLUSH_DCACHE_PAGE,
	DM_RUST_WQ_SOFTIRQ = WQ_BH | WQ_PERCPU,
	DM_RUST_WQ_TASK = WQ_MEM_RECLAIM | WQ_HIGHPRI | WQ_PERCPU,
	DM_RUST_WQ_THREADS = WQ_MEM_RECLAIM | WQ_UNBOUND,
	DM_RUST_STATUS_INFO = STATUSTYPE_INFO,
	DM_RUST_STATUS_TABLE = STATUSTYPE_TABLE,
	DM_RUST_STATUS_IMA = STATUSTYPE_IMA,
};

/* Bits that dm_rust_folio_state() returns. */
enum {
	DM_RUST_FOLIO_LOCKED = 1 << 0,
	DM_RUST_FOLIO_UPTODATE = 1 << 1,
	DM_RUST_FOLIO_DIRTY = 1 << 2,
	DM_RUST_FOLIO_WRITEBACK = 1 << 3,
	DM_RUST_FOLIO_MAPPED = 1 << 4,
	DM_RUST_FOLIO_PINNED = 1 << 5,
	DM_RUST_FOLIO_FILE = 1 << 6,
};

struct folio *dm_rust_page_folio(struct page *page);
struct folio *dm_rust_folio_get(struct address_space *mapping, pgoff_t index);
void dm_rust_folio_ref(struct folio *folio);
bool dm_rust_copy_page(void *to, struct folio *folio, unsigned long at);
void dm_rust_folio_put(struct folio *folio);
bool dm_rust_folio_trylock(struct folio *folio);
void dm_rust_folio_unlock(struct folio *folio);
bool dm_rust_folio_idle(struct folio *folio);
bool dm_rust_folio_drop(struct address_space *mapping, struct folio *folio,
			bool if_unused);
unsigned long dm_rust_folio_reclaimed_from(struct folio *folio);
unsigned long dm_rust_folio_group(struct folio *folio);
unsigned int dm_rust_folio_state(struct folio *folio);
struct address_space *dm_rust_folio_mapping(struct folio *folio);
pgoff_t dm_rust_folio_index(struct folio *folio);
unsigned long dm_rust_folio_nr_pages(struct folio *folio);
unsigned long dm_rust_folio_page_idx(struct folio *folio, struct page *page);
void *dm_rust_page_address(struct page *page);
void dm_rust_flush_dcache(const void *at, size_t len);
bool dm_rust_mapping_holds(struct address_space *mapping, struct folio *folio,
			   pgoff_t index);
bool dm_rust_mapping_reads_folios(struct address_space *mapping);
bool dm_rust_folio_has_buffers(struct address_space *mapping,
			       struct folio *folio);

void dm_rust_bio_set_dev(struct bio *bio, struct block_device *bdev);
bool dm_rust_bio_is_transformed(struct bio *bio);
void dm_rust_bio_hold(struct bio *bio);
void dm_rust_bio_release(struct bio *bio);
struct bio *dm_rust_bio_alloc_nowait(struct bio *like, struct block_device *bdev,
				     unsigned int pages, blk_opf_t opf);
unsigned int dm_rust_bdev_max_sectors(struct block_device *bdev);
struct page *dm_rust_alloc_page_nowait(void);
void dm_rust_free_page(struct page *page);

sector_t dm_rust_bdev_sectors(struct block_device *bdev);
struct block_device *dm_rust_md_bdev(struct mapped_device *md);

unsigned long dm_rust_total_ram_pages(void);
bool dm_rust_may_warn(void);
void dm_rust_cond_resched(void);
void dm_rust_preempt_disable(void);
void dm_rust_preempt_enable(void);
bool dm_rust_in_hardirq(void);
bool dm_rust_irqs_disabled(void);
void dm_rust_tracepoint_synchronize(void);

u64 __percpu *dm_rust_counters_alloc(size_t count, bool may_sleep);
void dm_rust_counters_free(u64 __percpu *counters);
void dm_rust_counters_add(u64 __percpu *counters, size_t at, u64 by);
u64 dm_rust_counters_sum(u64 __percpu *counters, size_t at);

unsigned long dm_rust_irq_lock(spinlock_t *lock);
bool dm_rust_irq_trylock(spinlock_t *lock, unsigned long *flags);
void dm_rust_irq_unlock(spinlock_t *lock, unsigned long flags);

struct dm_rust_ticker;
typedef bool (*dm_rust_tick_fn)(void *data);

/*
 * Delayed work. Once dm_rust_ticker_tick() has started it, it repeats every
 * @every_ms milliseconds until @fn returns false.
 */
struct dm_rust_ticker *dm_rust_ticker_new(const char *name, bool for_reclaim,
					  unsigned int every_ms,
					  dm_rust_tick_fn fn, void *data);
void dm_rust_ticker_tick(struct dm_rust_ticker *ticker, bool soon);
void dm_rust_ticker_free(struct dm_rust_ticker *ticker);
u64 dm_rust_jiffies(void);

/* Workqueues. @flags is one of DM_RUST_WQ_*. */
struct workqueue_struct *dm_rust_queue_new(const char *name, unsigned int flags);
void dm_rust_queue_work(struct workqueue_struct *queue,
			struct work_struct *work, work_func_t fn);
void dm_rust_queue_free(struct workqueue_struct *queue);

/* Private page caches. */
struct vfsmount *dm_rust_mount_new(void);
void dm_rust_mount_free(struct vfsmount *mnt);
struct inode *dm_rust_store_new(struct vfsmount *mnt);
void dm_rust_store_free(struct inode *inode);
struct address_space *dm_rust_store_mapping(struct inode *inode);
unsigned long dm_rust_store_pages(struct inode *inode);
bool dm_rust_store_add(struct inode *inode, struct page *page, pgoff_t index);
void dm_rust_store_drop(struct inode *inode, pgoff_t last);
void dm_rust_store_unlock(struct page *page);

struct bio_set *dm_rust_slab_new(unsigned int data_size, bool first);
void dm_rust_slab_free(struct bio_set *set);

#endif /* _DM_RUST_HELPERS_H */
