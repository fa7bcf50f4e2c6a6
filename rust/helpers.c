// SPDX-License-Identifier: GPL-2.0
/* See helpers.h. */

#include <linux/atomic.h>
#include <linux/bio.h>
#include <linux/blk-crypto.h>
#include <linux/blk-integrity.h>
#include <linux/blkdev.h>
#include <linux/buffer_head.h>
#include <linux/device-mapper.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/highmem.h>
#include <linux/irqflags.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/pagemap.h>
#include <linux/percpu.h>
#include <linux/preempt.h>
#include <linux/pseudo_fs.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/tracepoint.h>
#include <linux/workqueue.h>
#include "helpers.h"

#define DM_RUST_FS_MAGIC 0x64727573	/* "drus" */

#ifdef CONFIG_HIGHMEM
#error "pages are reached through the kernel's linear mapping"
#endif

struct folio *dm_rust_page_folio(struct page *page)
{
	/*
	 * A tail page has its folio where other pages have a link of the LRU
	 * lists, which reclaim may change at any time. Bit 0 tells the two
	 * apart: no link has it set.
	 */
	return data_race(page_folio(page));
}

/*
 * filemap_get_entry() is not exported. This is its protocol without the retry:
 * a folio that is being removed or replaced counts as absent.
 */
struct folio *dm_rust_folio_get(struct address_space *mapping, pgoff_t index)
{
	struct folio *folio = xa_load(&mapping->i_pages, index);

	if (!folio || xa_is_value(folio) || !folio_try_get(folio))
		return NULL;
	if (folio != xa_load(&mapping->i_pages, index)) {
		folio_put(folio);
		return NULL;
	}
	return folio;
}

void dm_rust_folio_ref(struct folio *folio)
{
	folio_get(folio);
}

/*
 * Returns false if the page's memory is broken: copying it would raise a
 * machine check.
 */
bool dm_rust_copy_page(void *to, struct folio *folio, unsigned long at)
{
	struct page *page = folio_page(folio, at);

	if (PageHWPoison(page))
		return false;
	/*
	 * The page may be written to during the copy. The copy counts only if
	 * it has the expected digest.
	 */
	data_race(({ copy_page(to, page_address(page)); 0; }));
	return true;
}

void dm_rust_folio_put(struct folio *folio)
{
	folio_put(folio);
}

bool dm_rust_folio_trylock(struct folio *folio)
{
	return folio_trylock(folio);
}

void dm_rust_folio_unlock(struct folio *folio)
{
	folio_unlock(folio);
}

#ifdef CONFIG_LRU_GEN
/*
 * Multi-gen LRU has no active pages: reclaim takes from the oldest generation.
 */
static bool folio_in_younger_gen(struct folio *folio)
{
	int gen = folio_lru_gen(folio);
	unsigned long oldest;

	if (gen < 0)
		return false;
	rcu_read_lock();
	oldest = READ_ONCE(folio_lruvec(folio)->lrugen.min_seq[LRU_GEN_FILE]);
	rcu_read_unlock();
	return gen != lru_gen_from_seq(oldest);
}
#else
static bool folio_in_younger_gen(struct folio *folio)
{
	return false;
}
#endif

bool dm_rust_folio_idle(struct folio *folio)
{
	return !folio_test_active(folio) && !folio_test_referenced(folio) &&
	       !folio_in_younger_gen(folio) && !folio_mapped(folio);
}

/*
 * Returns whether a locked folio on which the caller has one reference is clean
 * and otherwise unused.
 *
 * A process that may still dirty the folio without its lock has it mapped or
 * pinned, and drops its reference only after that; so the references are
 * checked first.
 */
static bool folio_unused(struct folio *folio)
{
	if (folio_ref_count(folio) !=
	    folio_nr_pages(folio) + folio_has_private(folio) + 1)
		return false;
	/* pairs with the full barrier in folio_put() */
	smp_rmb();
	return !folio_test_dirty(folio) && !folio_test_writeback(folio) &&
	       !folio_mapped(folio);
}

/*
 * Does what remove_mapping() does for reclaim, with exported functions.  The
 * caller has locked the folio and holds one reference.
 *
 * While the folio is locked, it can't be mapped.  Code that takes a reference
 * from now on finds the folio in no mapping once it has the lock, or reads its
 * data, which are valid.  Buffers are only released if the folio is clean:
 * releasing them would mark a dirty one as written.  Only a test build drops
 * folios in use.
 *
 * filemap_free_folio() accesses the mapping after the folio has left it.  If it
 * was the last folio, nothing keeps the inode from being evicted by then, but
 * RCU keeps it from being freed.  Nothing sleeps in there: the folio is neither
 * mapped nor has private data any more.
 */
bool dm_rust_folio_drop(struct address_space *mapping, struct folio *folio,
			bool if_unused)
{
	bool removed;

	/* generic_error_remove_folio() removes folios of regular files only. */
	if (!S_ISREG(mapping->host->i_mode))
		return false;
	if (if_unused &&
	    (mapping_unevictable(mapping) || !folio_unused(folio) ||
	     !filemap_release_folio(folio, 0) || !folio_unused(folio)))
		return false;
	rcu_read_lock();
	removed = !generic_error_remove_folio(mapping, folio);
	rcu_read_unlock();
	return removed;
}

/*
 * Returns a number that stands for the control group to which the folio is
 * charged, if reclaim is removing the folio, and 0 otherwise.
 */
unsigned long dm_rust_folio_reclaimed_from(struct folio *folio)
{
	return current->flags & PF_MEMALLOC ? dm_rust_folio_group(folio) : 0;
}

unsigned long dm_rust_folio_group(struct folio *folio)
{
	unsigned long group;

	rcu_read_lock();
	group = (unsigned long)folio_memcg(folio);
	rcu_read_unlock();
	return group ?: 1;
}

unsigned int dm_rust_folio_state(struct folio *folio)
{
	unsigned int state = 0;

	if (folio_test_locked(folio))
		state |= DM_RUST_FOLIO_LOCKED;
	if (folio_test_uptodate(folio))
		state |= DM_RUST_FOLIO_UPTODATE;
	if (folio_test_dirty(folio))
		state |= DM_RUST_FOLIO_DIRTY;
	if (folio_test_writeback(folio))
		state |= DM_RUST_FOLIO_WRITEBACK;
	if (folio_mapped(folio))
		state |= DM_RUST_FOLIO_MAPPED;
	if (folio_maybe_dma_pinned(folio))
		state |= DM_RUST_FOLIO_PINNED;
	if (!folio_test_anon(folio) && !folio_test_swapcache(folio) &&
	    !folio_test_hugetlb(folio) && !folio_test_slab(folio) &&
	    !folio_is_zone_device(folio))
		state |= DM_RUST_FOLIO_FILE;
	return state;
}

struct address_space *dm_rust_folio_mapping(struct folio *folio)
{
	return READ_ONCE(folio->mapping);
}

pgoff_t dm_rust_folio_index(struct folio *folio)
{
	return folio->index;
}

unsigned long dm_rust_folio_nr_pages(struct folio *folio)
{
	return folio_nr_pages(folio);
}

unsigned long dm_rust_folio_page_idx(struct folio *folio, struct page *page)
{
	return folio_page_idx(folio, page);
}

void *dm_rust_page_address(struct page *page)
{
	return page_address(page);
}

/* The last step of memcpy_to_page(), for memory that may be of several pages. */
void dm_rust_flush_dcache(const void *at, size_t len)
{
	size_t done;

	for (done = 0; done < len; done += PAGE_SIZE - offset_in_page(at + done))
		flush_dcache_page(virt_to_page(at + done));
}

bool dm_rust_mapping_holds(struct address_space *mapping, struct folio *folio,
			   pgoff_t index)
{
	return xa_load(&mapping->i_pages, index) == folio;
}

bool dm_rust_mapping_reads_folios(struct address_space *mapping)
{
	return READ_ONCE(mapping->a_ops)->read_folio;
}

/*
 * Only a block device's folios are known to have buffers as their private data.
 */
bool dm_rust_folio_has_buffers(struct address_space *mapping,
			       struct folio *folio)
{
	return sb_is_blkdev_sb(mapping->host->i_sb) && folio_buffers(folio);
}

void dm_rust_bio_set_dev(struct bio *bio, struct block_device *bdev)
{
	bio_set_dev(bio, bdev);
}

/* Returns whether the submitter sees other data than the disk holds. */
bool dm_rust_bio_is_transformed(struct bio *bio)
{
	return bio_has_crypt_ctx(bio) || bio_integrity(bio);
}

/* Keeps a bio from completing until it is ended and released. */
void dm_rust_bio_hold(struct bio *bio)
{
	bio_inc_remaining(bio);
}

/* Ends dm_rust_bio_hold(), and completes the bio if it was ended meanwhile. */
void dm_rust_bio_release(struct bio *bio)
{
	bio_endio(bio);
}

/* Allocates a bio with the I/O priority and write hint of @like. */
struct bio *dm_rust_bio_alloc_nowait(struct bio *like, struct block_device *bdev,
				     unsigned int pages, blk_opf_t opf)
{
	struct bio *bio = bio_alloc(bdev, pages, opf, GFP_NOWAIT);

	if (bio) {
		bio->bi_ioprio = like->bi_ioprio;
		bio->bi_write_hint = like->bi_write_hint;
	}
	return bio;
}

/* Longer I/O is split. */
unsigned int dm_rust_bdev_max_sectors(struct block_device *bdev)
{
	return queue_max_sectors(bdev_get_queue(bdev));
}

struct page *dm_rust_alloc_page_nowait(void)
{
	return alloc_page(GFP_NOWAIT);
}

void dm_rust_free_page(struct page *page)
{
	__free_page(page);
}

sector_t dm_rust_bdev_sectors(struct block_device *bdev)
{
	return bdev_nr_sectors(bdev);
}

struct block_device *dm_rust_md_bdev(struct mapped_device *md)
{
	return dm_disk(md)->part0;
}

unsigned long dm_rust_total_ram_pages(void)
{
	return totalram_pages();
}

bool dm_rust_may_warn(void)
{
	static DEFINE_RATELIMIT_STATE(limit, DEFAULT_RATELIMIT_INTERVAL,
				      DEFAULT_RATELIMIT_BURST);

	return __ratelimit(&limit);
}

u64 __percpu *dm_rust_counters_alloc(size_t count, bool may_sleep)
{
	return __alloc_percpu_gfp(count * sizeof(u64), sizeof(u64),
				  may_sleep ? GFP_KERNEL :
					      GFP_NOWAIT | __GFP_NOWARN);
}

void dm_rust_counters_free(u64 __percpu *counters)
{
	free_percpu(counters);
}

/*
 * Where the CPU has an instruction for it, this_cpu_add() is one instruction.
 * On User-mode Linux it disables and enables interrupts, by two system calls of
 * the host.  There, an atomic operation on a cache line that no other CPU
 * writes is cheaper, and correct even if the task has moved to another CPU.
 */
void dm_rust_counters_add(u64 __percpu *counters, size_t at, u64 by)
{
	if (IS_ENABLED(CONFIG_UML))
		atomic64_add(by, (atomic64_t *)raw_cpu_ptr(&counters[at]));
	else
		this_cpu_add(counters[at], by);
}

u64 dm_rust_counters_sum(u64 __percpu *counters, size_t at)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(*per_cpu_ptr(&counters[at], cpu));
	return sum;
}

void dm_rust_cond_resched(void)
{
	cond_resched();
}

void dm_rust_preempt_disable(void)
{
	preempt_disable();
}

void dm_rust_preempt_enable(void)
{
	preempt_enable();
}

bool dm_rust_in_hardirq(void)
{
	return in_hardirq();
}

bool dm_rust_irqs_disabled(void)
{
	return irqs_disabled();
}

unsigned long dm_rust_irq_lock(spinlock_t *lock)
{
	unsigned long flags;

	spin_lock_irqsave(lock, flags);
	return flags;
}

bool dm_rust_irq_trylock(spinlock_t *lock, unsigned long *flags)
{
	return spin_trylock_irqsave(lock, *flags);
}

void dm_rust_irq_unlock(spinlock_t *lock, unsigned long flags)
{
	spin_unlock_irqrestore(lock, flags);
}

void dm_rust_tracepoint_synchronize(void)
{
	tracepoint_synchronize_unregister();
}

struct dm_rust_ticker {
	struct workqueue_struct *queue;
	struct delayed_work tick;
	unsigned int every_ms;
	dm_rust_tick_fn fn;
	void *data;
};

static void ticker_work(struct work_struct *work)
{
	struct dm_rust_ticker *ticker =
		container_of(to_delayed_work(work), struct dm_rust_ticker, tick);

	if (ticker->fn(ticker->data))
		dm_rust_ticker_tick(ticker, false);
}

struct dm_rust_ticker *dm_rust_ticker_new(const char *name, bool for_reclaim,
					  unsigned int every_ms,
					  dm_rust_tick_fn fn, void *data)
{
	struct dm_rust_ticker *ticker = kzalloc_obj(*ticker);
	unsigned int flags = WQ_UNBOUND | (for_reclaim ? WQ_MEM_RECLAIM : 0);

	if (!ticker)
		return ERR_PTR(-ENOMEM);
	ticker->every_ms = every_ms;
	ticker->fn = fn;
	ticker->data = data;
	INIT_DELAYED_WORK(&ticker->tick, ticker_work);
	ticker->queue = alloc_workqueue("%s", flags, 0, name);
	if (!ticker->queue) {
		kfree(ticker);
		return ERR_PTR(-ENOMEM);
	}
	return ticker;
}

void dm_rust_ticker_tick(struct dm_rust_ticker *ticker, bool soon)
{
	if (soon)
		mod_delayed_work(ticker->queue, &ticker->tick, 1);
	else
		queue_delayed_work(ticker->queue, &ticker->tick,
				   msecs_to_jiffies(ticker->every_ms));
}

void dm_rust_ticker_free(struct dm_rust_ticker *ticker)
{
	cancel_delayed_work_sync(&ticker->tick);
	destroy_workqueue(ticker->queue);
	kfree(ticker);
}

u64 dm_rust_jiffies(void)
{
	return get_jiffies_64();
}

struct workqueue_struct *dm_rust_queue_new(const char *name, unsigned int flags)
{
	return alloc_workqueue("%s", flags, 0, name);
}

void dm_rust_queue_work(struct workqueue_struct *queue,
			struct work_struct *work, work_func_t fn)
{
	INIT_WORK(work, fn);
	queue_work(queue, work);
}

void dm_rust_queue_free(struct workqueue_struct *queue)
{
	destroy_workqueue(queue);
}

static int private_fs_context(struct fs_context *fc)
{
	return init_pseudo(fc, DM_RUST_FS_MAGIC) ? 0 : -ENOMEM;
}

/* Has no owner: a reference would keep the module from being unloaded. */
static struct file_system_type private_fs = {
	.name = "dm_rust",
	.init_fs_context = private_fs_context,
	.kill_sb = kill_anon_super,
};

struct vfsmount *dm_rust_mount_new(void)
{
	return kern_mount(&private_fs);
}

void dm_rust_mount_free(struct vfsmount *mnt)
{
	kern_unmount(mnt);
}

/* The inode is on its superblock's list, so that drop_caches finds it. */
struct inode *dm_rust_store_new(struct vfsmount *mnt)
{
	struct inode *inode = new_inode(mnt->mnt_sb);

	if (!inode)
		return ERR_PTR(-ENOMEM);
	inode->i_ino = get_next_ino();
	return inode;
}

void dm_rust_store_free(struct inode *inode)
{
	iput(inode);
}

struct address_space *dm_rust_store_mapping(struct inode *inode)
{
	return inode->i_mapping;
}

unsigned long dm_rust_store_pages(struct inode *inode)
{
	return READ_ONCE(inode->i_mapping->nrpages);
}

/* Returns true with the folio locked, or false on failure. */
bool dm_rust_store_add(struct inode *inode, struct page *page, pgoff_t index)
{
	struct folio *folio = page_folio(page);

	if (filemap_add_folio(inode->i_mapping, folio, index,
			      GFP_NOWAIT | __GFP_NOWARN))
		return false;
	folio_mark_uptodate(folio);
	return true;
}

/* Drops all folios up to index @last, except those in use. */
void dm_rust_store_drop(struct inode *inode, pgoff_t last)
{
	invalidate_mapping_pages(inode->i_mapping, 0, last);
}

void dm_rust_store_unlock(struct page *page)
{
	folio_unlock(page_folio(page));
}

/* More than device-mapper's own data before a clone. */
#define BEFORE_CLONE 1024

/*
 * Returns the front padding of the bio set from which device-mapper takes
 * clones with @data_size bytes of per-bio data, or -ENOMEM.
 *
 * dm.c embeds the first clone of a bio in a struct dm_io, and allocates others
 * without one.  Per-bio data is in front of the clone, at a distance that only
 * dm.c knows.  dm_per_bio_data() reads a flag there to tell the two kinds
 * apart, so either all bits are set or none.
 */
static int front_pad(unsigned int data_size, bool first)
{
	char *memory = kmalloc(BEFORE_CLONE + sizeof(struct bio), GFP_KERNEL);
	struct bio *clone;
	int pad;

	if (!memory)
		return -ENOMEM;
	memset(memory, first ? 0xff : 0, BEFORE_CLONE + sizeof(struct bio));
	clone = (struct bio *)(memory + BEFORE_CLONE);
	pad = (char *)clone - (char *)dm_per_bio_data(clone, 0);
	kfree(memory);
	return pad + ALIGN(data_size, __alignof__(u64));
}

/*
 * Bio sets whose bios have the same size, padding included, share one slab:
 * this one keeps device-mapper's alive.
 */
struct bio_set *dm_rust_slab_new(unsigned int data_size, bool first)
{
	struct bio_set *set = kzalloc(sizeof(*set), GFP_KERNEL);
	int pad = front_pad(data_size, first);

	if (set && pad >= 0 && !bioset_init(set, 1, pad, 0))
		return set;
	kfree(set);
	return NULL;
}

void dm_rust_slab_free(struct bio_set *set)
{
	bioset_exit(set);
	kfree(set);
}
