// SPDX-License-Identifier: GPL-2.0-only
/*
 * Interface for targets that are stacked on thin devices, for a dm-thin-pool
 * that lacks it.
 *
 * A second implementation of <linux/dm-thin.h>, beside the one that patches
 * dm-thin.  This one works with the kernel's own module, while pools are
 * active and busy: ftrace redirects ten of its functions to wrappers here,
 * which run in their place and call them.  Structures are
 * accessed at the places that the module's type information gives
 * (layout_generated.h), and only if the loaded modules have the build ids of
 * those that it was taken from.
 *
 * Three things are different from dm-thin as it is: create_snap suspends the
 * origin, delete waits for devices that are being closed, and a pool that can't
 * allocate doesn't send writes to shared blocks.
 *
 * Locks, from the outermost to the innermost:
 *
 *	hooks_mutex
 *	watch_mutex of a pool		while its thin devices are suspended
 *	create_mutex of a pool		in a message to the pool
 *	  suspend_lock of a device
 *	    resume_mutex of a pool
 *	      root_lock of dm-thin's metadata
 *	state_lock			a leaf
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/cleanup.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/device-mapper.h>
#include <linux/dm-thin.h>
#include <linux/fs.h>
#include <linux/ftrace.h>
#include <linux/hashtable.h>
#include <linux/jiffies.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/rculist.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/rwsem.h>
#include <linux/slab.h>
#include <linux/static_call.h>
#include <linux/string.h>
#include <linux/workqueue.h>

#include "dm-thin-private.h"

/* As in dm-thin-metadata.c: a mapping is a block and a time of 24 bits. */
#define TIME_BITS 24
#define MAX_TIME ((1 << TIME_BITS) - 1)
#define MAX_DEV_ID ((1 << 24) - 1)

#define SNAP_PATIENCE (30 * HZ)
#define DELETE_PATIENCE HZ

/*
 * A pool, by its metadata: from the opening to the closing of that, if both
 * are seen, else from the first snapshot or the first handle that is asked for.
 */
struct pool_state {
	struct hlist_node node;
	struct dm_pool_metadata *pmd;
	u64 id;				/* Never reused, unlike the address */
	bool changing;			/* A mapping: between the two events */
	bool names_lost;		/* Block and time may name several contents; root_lock */
	bool watched;			/* Snapshots suspend their origins; create_mutex */
	bool quiesced;			/* No bio is under way that began before; watch_mutex */
	struct mutex watch_mutex;	/* Held while the thin devices are quiesced */
	struct mutex create_mutex;	/* One message at a time creates a device */
	struct mutex resume_mutex;	/* Held while no thin must become active */
	struct workqueue_struct *snap_wq; /* If watched */
	struct rcu_head rcu;
};

/* A table with one thin target, by its device, from its first resume to its end. */
struct thin_state {
	struct hlist_node node;
	struct mapped_device *md;
	struct thin_c *tc;
	struct pool_state *pool;
	sector_t len;
	u64 binding;			/* Not 0 from preresume to postsuspend */
	struct list_head suspended;	/* For a snapshot; used by snap_wq */
	struct rcu_head rcu;
};

static DEFINE_HASHTABLE(pools_by_pmd, 6);
static DEFINE_HASHTABLE(thins_by_md, 8);
static DEFINE_SPINLOCK(state_lock); /* Protects both tables */
static u64 last_pool_id;
static atomic64_t last_binding;

/* An SRCU chain, as a blocking one would have pools wait for each other's callbacks. */
static struct srcu_notifier_head thin_notifier;

static int thin_notify(struct pool_state *pool, enum dm_thin_event event,
		       struct dm_thin_event_data data)
{
	data.pool_id = pool->id;
	return srcu_notifier_call_chain(&thin_notifier, event, &data);
}

static struct pool_state *find_pool(struct dm_pool_metadata *pmd)
{
	struct pool_state *pool;

	hash_for_each_possible_rcu(pools_by_pmd, pool, node, (unsigned long)pmd)
		if (pool->pmd == pmd)
			return pool;

	return NULL;
}

/* The caller keeps the metadata open, and with it the state. */
static struct pool_state *pool_of(struct dm_pool_metadata *pmd)
{
	guard(rcu)();
	return find_pool(pmd);
}

static void pool_free(struct pool_state *pool)
{
	if (pool->snap_wq)
		destroy_workqueue(pool->snap_wq);
	kfree_rcu(pool, rcu);
}

static struct workqueue_struct *alloc_snap_wq(void)
{
	return alloc_ordered_workqueue("dm-thin-snap", WQ_MEM_RECLAIM);
}

/*
 * Returns the state of a pool, a new one if need be; NULL without memory.  A
 * message must not wait for reclaim, which may want to write to the pool: so the
 * workqueue is allocated when a pool is opened, or when it is to be watched.
 */
static struct pool_state *pool_get(struct dm_pool_metadata *pmd, bool watched)
{
	struct pool_state *new, *old;

	old = pool_of(pmd);
	if (old)
		return old;

	new = kzalloc_obj(*new, GFP_NOIO);
	if (!new)
		return NULL;
	if (watched) {
		new->snap_wq = alloc_snap_wq();
		if (!new->snap_wq) {
			kfree(new);
			return NULL;
		}
	}
	new->pmd = pmd;
	new->watched = watched;
	new->quiesced = watched;
	mutex_init(&new->watch_mutex);
	mutex_init(&new->create_mutex);
	mutex_init(&new->resume_mutex);

	scoped_guard(spinlock, &state_lock) {
		old = find_pool(pmd);
		if (!old) {
			new->id = ++last_pool_id;
			hash_add_rcu(pools_by_pmd, &new->node, (unsigned long)pmd);
		}
	}
	if (!old)
		return new;

	pool_free(new);
	return old;
}

/* Takes the reference that the pool's worker takes while it walks the thin devices. */
static void thin_get(struct thin_c *tc)
{
	refcount_inc(&tc->refcount);
}

static void thin_put(struct thin_c *tc)
{
	if (refcount_dec_and_test(&tc->refcount))
		complete(&tc->can_destroy);
}

/*
 * Should the table be swapped after the binding was read, then the caller has
 * a number that dm_thin_binding() never returns again.
 */
static struct thin_state *find_bound_thin(struct mapped_device *md, u64 *binding)
{
	struct thin_state *thin;

	hash_for_each_possible_rcu(thins_by_md, thin, node, (unsigned long)md) {
		*binding = READ_ONCE(thin->binding);
		if (thin->md == md && *binding)
			return thin;
	}

	return NULL;
}

/* The state of a table, whose target the caller keeps. */
static struct thin_state *state_of(struct thin_c *tc)
{
	struct thin_state *thin;

	guard(rcu)();
	hash_for_each_possible_rcu(thins_by_md, thin, node, (unsigned long)tc->thin_md)
		if (thin->tc == tc)
			return thin;

	return NULL;
}

/*
 * A walk of a pool's thin devices must not go on from one after a sleep: once
 * that is off the list, its successor may be freed.  So all walks begin anew,
 * and return a device with a reference.
 */

/* The device with @id in an active table, if there is one. */
static struct thin_c *get_active_thin(struct pool *pool, dm_thin_id id)
{
	struct thin_state *thin;
	struct thin_c *tc;

	guard(rcu)();
	list_for_each_entry_rcu(tc, &pool->active_thins, list) {
		thin = tc->dev_id == id ? state_of(tc) : NULL;
		if (thin && READ_ONCE(thin->binding)) {
			thin_get(tc);
			return tc;
		}
	}

	return NULL;
}

/* The device with @id, in whatever table, that comes after @skip others with that id. */
static struct thin_c *get_nth_thin(struct pool *pool, dm_thin_id id, unsigned int skip)
{
	struct thin_c *tc;

	guard(rcu)();
	list_for_each_entry_rcu(tc, &pool->active_thins, list) {
		if (tc->dev_id == id && !skip--) {
			thin_get(tc);
			return tc;
		}
	}

	return NULL;
}

/*
 * The wrappers.  original() calls what is behind the first instruction of
 * dm-thin's function, which is the call that ftrace has patched.
 */

/* Calls that are in a wrapper: the module stays until they have returned. */
static atomic_t in_wrappers = ATOMIC_INIT(0);

DEFINE_LOCK_GUARD_0(wrapper, atomic_inc(&in_wrappers), atomic_dec(&in_wrappers))

#define original(name) static_call(name ## _original)

#define ORIGINAL(name)							\
	DEFINE_STATIC_CALL_NULL(name ## _original, name ## _wrapper);	\
	static void name ## _link(unsigned long address)		\
	{								\
		static_call_update(name ## _original,			\
				   (typeof(name ## _wrapper) *)address);	\
	}

static int dm_thin_insert_block_wrapper(struct dm_thin_device *td, dm_block_t block,
					dm_block_t data_block);
ORIGINAL(dm_thin_insert_block);
static int dm_thin_remove_range_wrapper(struct dm_thin_device *td, dm_block_t begin,
					dm_block_t end);
ORIGINAL(dm_thin_remove_range);
static int dm_pool_abort_metadata_wrapper(struct dm_pool_metadata *pmd);
ORIGINAL(dm_pool_abort_metadata);
static struct dm_pool_metadata *
dm_pool_metadata_open_wrapper(struct block_device *bdev, sector_t data_block_size,
			      bool format_device);
ORIGINAL(dm_pool_metadata_open);
static int dm_pool_metadata_close_wrapper(struct dm_pool_metadata *pmd);
ORIGINAL(dm_pool_metadata_close);
static void __process_bio_read_only_wrapper(struct thin_c *tc, struct bio *bio,
					    struct dm_bio_prison_cell *cell);
ORIGINAL(__process_bio_read_only);
static void thin_postsuspend_wrapper(struct dm_target *ti);
ORIGINAL(thin_postsuspend);
static int thin_preresume_wrapper(struct dm_target *ti);
ORIGINAL(thin_preresume);
static void thin_dtr_wrapper(struct dm_target *ti);
ORIGINAL(thin_dtr);
static int pool_message_wrapper(struct dm_target *ti, unsigned int argc, char **argv,
				char *result, unsigned int maxlen);
ORIGINAL(pool_message);

#ifdef DRR_MUTANTS
static unsigned int changes_ms;
module_param(changes_ms, uint, 0644);
MODULE_PARM_DESC(changes_ms, "How long a change of a mapping is told of in advance, for tests");

static unsigned int changed_ms;
module_param(changed_ms, uint, 0644);
MODULE_PARM_DESC(changed_ms, "How long a change of a mapping is not told, for tests");

static void hold(unsigned int ms, const char *text)
{
	if (ms) {
		pr_info("%s\n", text);
		msleep(ms);
	}
}
#else
static const unsigned int changes_ms, changed_ms;

static void hold(unsigned int ms, const char *text) { }
#endif

/*
 * Only called by the pool's worker, of which a pool has one: the two events
 * come in pairs, and pairs of one pool don't overlap.
 */
static void mapping_changes(struct pool_state *pool, struct dm_thin_event_data data)
{
	/* Pairs with dm_thin_register_notifier(); srcu_read_lock() is a full barrier. */
	WRITE_ONCE(pool->changing, true);
	thin_notify(pool, DM_THIN_MAPPING_CHANGES, data);
	hold(changes_ms, "thin: told of, not changed yet");
}

static void mapping_changed(struct pool_state *pool, struct dm_thin_event_data data)
{
	hold(changed_ms, "thin: changed, not told yet");
	thin_notify(pool, DM_THIN_MAPPING_CHANGED, data);
	/* Pairs with dm_thin_lookup(): it has been told. */
	smp_store_release(&pool->changing, false);
}

static int dm_thin_insert_block_wrapper(struct dm_thin_device *td, dm_block_t block,
					dm_block_t data_block)
{
	struct pool_state *pool = pool_of(td->pmd);
	struct dm_thin_event_data data = {
		.thin_id = td->id, .begin = block, .end = block + 1 };
	int r;

	guard(wrapper)();
	if (!pool)
		return original(dm_thin_insert_block)(td, block, data_block);

	mapping_changes(pool, data);
	r = original(dm_thin_insert_block)(td, block, data_block);
	mapping_changed(pool, data);

	return r;
}

static int dm_thin_remove_range_wrapper(struct dm_thin_device *td, dm_block_t begin,
					dm_block_t end)
{
	struct pool_state *pool = pool_of(td->pmd);
	struct dm_thin_event_data data = { .thin_id = td->id, .begin = begin, .end = end };
	int r;

	guard(wrapper)();
	if (!pool)
		return original(dm_thin_remove_range)(td, begin, end);

	mapping_changes(pool, data);
	r = original(dm_thin_remove_range)(td, begin, end);
	mapping_changed(pool, data);

	return r;
}

static void lose_names(struct pool_state *pool)
{
	scoped_guard(rwsem_write, &pool->pmd->root_lock)
		pool->names_lost = true;
	thin_notify(pool, DM_THIN_ABORTED, (struct dm_thin_event_data) { });
}

static int dm_pool_abort_metadata_wrapper(struct dm_pool_metadata *pmd)
{
	struct pool_state *pool = pool_of(pmd);
	int r;

	guard(wrapper)();
	/* Before, or what is looked up now would be used after the roll-back. */
	if (pool)
		lose_names(pool);
	r = original(dm_pool_abort_metadata)(pmd);

	return r;
}

static struct dm_pool_metadata *
dm_pool_metadata_open_wrapper(struct block_device *bdev, sector_t data_block_size,
			      bool format_device)
{
	struct dm_pool_metadata *pmd;

	guard(wrapper)();
	pmd = original(dm_pool_metadata_open)(bdev, data_block_size, format_device);
	/* Without memory, watch_pool() makes up for it. */
	if (!IS_ERR(pmd))
		pool_get(pmd, true);

	return pmd;
}

static int dm_pool_metadata_close_wrapper(struct dm_pool_metadata *pmd)
{
	struct pool_state *pool = pool_of(pmd);
	int r;

	guard(wrapper)();
	if (pool) {
		scoped_guard(spinlock, &state_lock)
			hash_del_rcu(&pool->node);
		thin_notify(pool, DM_THIN_POOL_GONE, (struct dm_thin_event_data) { });
		pool_free(pool);
	}
	r = original(dm_pool_metadata_close)(pmd);

	return r;
}

/*
 * Writes may have joined the cell of a read; they must not go to a block that
 * others map as well, which is where the original sends the whole cell.  So it
 * gets the holder alone, and the worker looks at the others one by one.
 */
static void __process_bio_read_only_wrapper(struct thin_c *tc, struct bio *bio,
					    struct dm_bio_prison_cell *cell)
{
	struct pool *pool = tc->pool;

	guard(wrapper)();
	original(__process_bio_read_only)(tc, bio, NULL);
	if (!cell)
		return;

	scoped_guard(spinlock_irqsave, &tc->lock)
		dm_cell_release_no_holder(pool->prison, cell, &tc->deferred_bio_list);
	dm_bio_prison_free_cell(pool->prison, cell);
	queue_work(pool->wq, &pool->worker);
}

static void thin_postsuspend_wrapper(struct dm_target *ti)
{
	struct thin_state *thin = state_of(ti->private);

	guard(wrapper)();
	original(thin_postsuspend)(ti);
	if (thin)
		WRITE_ONCE(thin->binding, 0);
}

/* Returns the state of a table, a new one if need be; NULL without memory. */
static struct thin_state *thin_state_get(struct dm_target *ti, struct pool_state *pool)
{
	struct thin_c *tc = ti->private;
	struct thin_state *thin;

	thin = state_of(tc);
	if (thin)
		return thin;

	thin = kzalloc_obj(*thin, GFP_NOIO);
	if (!thin)
		return NULL;
	thin->md = tc->thin_md;
	thin->tc = tc;
	thin->pool = pool;
	thin->len = ti->len;
	scoped_guard(spinlock, &state_lock)
		hash_add_rcu(thins_by_md, &thin->node, (unsigned long)thin->md);

	return thin;
}

static int thin_preresume_wrapper(struct dm_target *ti)
{
	struct thin_c *tc = ti->private;
	struct pool_state *pool = pool_of(tc->pool->pmd);
	struct thin_state *thin;
	int r;

	guard(wrapper)();
	r = original(thin_preresume)(ti);
	/*
	 * Alone in its table, nothing can fail the resume after this.  Next to
	 * another target it could, and then postsuspend would not be called.
	 */
	if (r || !pool || ti->len != dm_table_get_size(ti->table))
		return r;

	/* Without memory, the device is as one that is suspended. */
	guard(mutex)(&pool->resume_mutex);
	thin = thin_state_get(ti, pool);
	if (thin)
		WRITE_ONCE(thin->binding, atomic64_inc_return(&last_binding));

	return 0;
}

/* The original waits for a grace period and for references, so for lookups that found the state. */
static void thin_dtr_wrapper(struct dm_target *ti)
{
	struct thin_state *thin = state_of(ti->private);

	guard(wrapper)();
	if (thin) {
		scoped_guard(spinlock, &state_lock)
			hash_del_rcu(&thin->node);
		kfree_rcu(thin, rcu);
	}
	original(thin_dtr)(ti);
}

/*
 * Messages to the pool
 */

struct message {
	struct dm_target *ti;
	unsigned int argc;
	char **argv;
	char *result;
	unsigned int maxlen;
};

static int pass_on(const struct message *m)
{
	return original(pool_message)(m->ti, m->argc, m->argv, m->result, m->maxlen);
}

/* The pool's time, which each snapshot increments; -ESTALE if it names no contents any more. */
static int pool_time(struct pool_state *pool, u32 *time)
{
	guard(rwsem_read)(&pool->pmd->root_lock);
	*time = pool->pmd->time;

	return pool->names_lost || *time >= MAX_TIME ? -ESTALE : 0;
}

struct snap_work {
	struct work_struct work;
	struct completion done;
	struct pool_state *state;
	struct pool *pool;
	const struct message *message;	/* The sender's, who is gone once it has given up */
	dm_thin_id origin_id;
	bool given_up;	/* Protected by resume_mutex, as r is */
	int r;
	int left;	/* Set by the first of message and worker; the other frees it */
};

/*
 * Suspends the devices whose active table has the origin, and no others: one
 * that has it in an inactive table may be stacked on one of them.  None must
 * become active meanwhile, for which there is resume_mutex; nothing that a
 * resume may hold is waited for under it.
 */
static void do_create_snap(struct work_struct *ws)
{
	struct snap_work *w = container_of(ws, struct snap_work, work);
	struct pool_state *state = w->state;
	struct thin_state *thin, *tmp;
	struct thin_c *tc;
	LIST_HEAD(suspended);

	mutex_lock(&state->resume_mutex);
	while ((tc = get_active_thin(w->pool, w->origin_id))) {
		mutex_unlock(&state->resume_mutex);

		dm_internal_suspend_noflush(tc->thin_md);
		thin = state_of(tc);
		WRITE_ONCE(thin->binding, 0); /* It isn't yet if a resume had failed */
		list_add(&thin->suspended, &suspended);
		mutex_lock(&state->resume_mutex);
	}

	if (!w->given_up)
		w->r = pass_on(w->message);
	complete(&w->done);
	mutex_unlock(&state->resume_mutex);

	/* The references keep the states and the mapped_devices, too */
	list_for_each_entry_safe(thin, tmp, &suspended, suspended) {
		tc = thin->tc;
		dm_internal_resume(tc->thin_md);
		thin_put(tc);
	}

	if (xchg(&w->left, 1))
		kfree(w);
}

/*
 * A worker does it, because the message is inside a read-side section of the
 * pool's io_barrier, and suspends wait for such sections of other devices.
 */
static int create_snap(struct pool_state *pool, const struct message *m, dm_thin_id origin_id)
{
	struct snap_work *w = kzalloc_obj(*w, GFP_NOIO);
	struct pool_c *pt = m->ti->private;
	int r;

	if (!w)
		return -ENOMEM;

	*w = (struct snap_work) {
		.state = pool, .pool = pt->pool, .message = m, .origin_id = origin_id,
		.r = -EBUSY };
	INIT_WORK(&w->work, do_create_snap);
	init_completion(&w->done);
	queue_work(pool->snap_wq, &w->work);

	/* If it takes too long, the origin's I/O may be waiting for the message. */
	wait_for_completion_killable_timeout(&w->done, SNAP_PATIENCE);

	/* Waits for a snapshot that is being taken */
	mutex_lock(&pool->resume_mutex);
	w->given_up = true;
	r = w->r;
	mutex_unlock(&pool->resume_mutex);

	if (xchg(&w->left, 1))
		kfree(w);

	return r;
}

static int create_snap_mesg(struct pool_state *pool, const struct message *m, dm_thin_id id,
			    dm_thin_id origin_id)
{
	u32 before, time;
	int r;

	guard(mutex)(&pool->create_mutex);
	pool_time(pool, &before);
	/* watch_pool() takes the mutex before it gives the first handle: this has ended by then. */
	r = pool->watched ? create_snap(pool, m, origin_id) : pass_on(m);
	if (pool_time(pool, &time) || (r && time != before)) {
		/*
		 * There are no more times, or the snapshot is half made: it
		 * sees as shared what the origin goes on writing in place.
		 */
		lose_names(pool);
	}
	if (!r)
		thin_notify(pool, DM_THIN_SNAPSHOT_CREATED, (struct dm_thin_event_data) {
				.thin_id = id, .origin_id = origin_id, .time = time });

	return r;
}

static int create_thin_mesg(struct pool_state *pool, const struct message *m, dm_thin_id id)
{
	u32 time = 0;
	int r;

	guard(mutex)(&pool->create_mutex);
	r = pass_on(m);
	if (!r) {
		pool_time(pool, &time);
		thin_notify(pool, DM_THIN_CREATED,
			    (struct dm_thin_event_data) { .thin_id = id, .time = time });
	}

	return r;
}

static bool is_open(struct dm_pool_metadata *pmd, dm_thin_id id)
{
	struct dm_thin_device *td;

	guard(rwsem_read)(&pmd->root_lock);
	list_for_each_entry(td, &pmd->thin_devices, list)
		if (td->id == id)
			return td->open_count;

	return false;
}

/*
 * Whether a thin device that is open will be closed in a moment: each device
 * that has it open is being removed, in which case it has lost its name, or is
 * about to close it, as a stacked target tells.
 */
static bool is_closing(struct pool_state *state, struct pool *pool, dm_thin_id id)
{
	char uuid[DM_UUID_LEN];
	struct dm_thin_event_data data = { .thin_id = id, .uuid = uuid };
	struct thin_c *tc;
	unsigned int n;
	int r;

	for (n = 0; (tc = get_nth_thin(pool, id, n)); n++) {
		r = dm_copy_name_and_uuid(tc->thin_md, NULL, uuid);
		thin_put(tc);
		if (!r && thin_notify(state, DM_THIN_BUSY, data) != NOTIFY_STOP)
			return false;
	}

	return true;
}

static int delete_mesg(struct pool_state *state, const struct message *m, dm_thin_id id)
{
	struct pool_c *pt = m->ti->private;
	unsigned long end = jiffies + DELETE_PATIENCE;
	int r;

	while (time_before(jiffies, end) && is_open(state->pmd, id) &&
	       is_closing(state, pt->pool, id))
		if (msleep_interruptible(10))
			break;
	r = pass_on(m);
	if (!r)
		thin_notify(state, DM_THIN_DELETED, (struct dm_thin_event_data) { .thin_id = id });

	return r;
}

/* As read_dev_id() in dm-thin.c, which complains where this fails. */
static bool read_id(const struct message *m, unsigned int arg, dm_thin_id *id)
{
	return arg < m->argc && !kstrtoull(m->argv[arg], 10, id) && *id <= MAX_DEV_ID;
}

static int pool_message_wrapper(struct dm_target *ti, unsigned int argc, char **argv,
				char *result, unsigned int maxlen)
{
	struct message m = { ti, argc, argv, result, maxlen };
	struct pool_c *pt = ti->private;
	struct pool_state *pool = pool_of(pt->pool->pmd);
	dm_thin_id id, origin_id;
	int r;

	guard(wrapper)();
	if (!strcasecmp(argv[0], "create_snap") && argc == 3 && read_id(&m, 1, &id) &&
	    read_id(&m, 2, &origin_id)) {
		pool = pool_get(pt->pool->pmd, false);
		r = pool ? create_snap_mesg(pool, &m, id, origin_id) : -ENOMEM;
	} else if (!strcasecmp(argv[0], "create_thin") && argc == 2 && read_id(&m, 1, &id)) {
		pool = pool_get(pt->pool->pmd, false);
		r = pool ? create_thin_mesg(pool, &m, id) : pass_on(&m);
	} else if (pool && !strcasecmp(argv[0], "delete") && argc == 2 && read_id(&m, 1, &id)) {
		r = delete_mesg(pool, &m, id);
	} else {
		r = pass_on(&m);
	}

	return r;
}

/*
 * The interface
 */

const unsigned int dm_thin_interface = DM_THIN_INTERFACE;
EXPORT_SYMBOL_GPL(dm_thin_interface);

static bool hooked; /* Protected by hooks_mutex; may be read without */

int dm_thin_register_notifier(struct notifier_block *nb)
{
	int r = srcu_notifier_chain_register(&thin_notifier, nb);

	/* Pairs with mapping_changes(): it calls nb, or a lookup sees "changing". */
	smp_mb();
	return r;
}
EXPORT_SYMBOL_GPL(dm_thin_register_notifier);

int dm_thin_unregister_notifier(struct notifier_block *nb)
{
	return srcu_notifier_chain_unregister(&thin_notifier, nb);
}
EXPORT_SYMBOL_GPL(dm_thin_unregister_notifier);

/* The target of a device whose active table is a thin target and nothing else, with a reference. */
static struct thin_c *get_live_thin(struct mapped_device *md)
{
	struct dm_table *table;
	struct thin_c *tc;

	/* As dm_get_live_table_fast(): a table is destroyed after a grace period. */
	guard(rcu)();
	table = READ_ONCE(md->map);
	if (!table || table->num_targets != 1 || strcmp(table->targets->type->name, "thin") ||
	    strcmp(module_name(table->targets->type->module), "dm_thin_pool"))
		return NULL;
	tc = table->targets->private;
	thin_get(tc);

	return tc;
}

static unsigned int count_thins(struct pool *pool)
{
	unsigned int count = 0;
	struct thin_c *tc;

	guard(rcu)();
	list_for_each_entry_rcu(tc, &pool->active_thins, list)
		count++;

	return count;
}

/* A device that is none of the @done ones in @seen. */
static struct thin_c *get_other_thin(struct pool *pool, struct thin_c **seen, unsigned int done)
{
	struct thin_c *tc;
	unsigned int i;

	guard(rcu)();
	list_for_each_entry_rcu(tc, &pool->active_thins, list) {
		for (i = 0; i < done && seen[i] != tc; i++)
			;
		if (i == done) {
			thin_get(tc);
			return tc;
		}
	}

	return NULL;
}

/*
 * Makes sure that all about a pool is known that was begun before the hooks, or
 * before the pool had a state: changes of mappings, by the pool's worker, and
 * bios that came before a snapshot of their device.  Each device is suspended
 * and resumed once, one after the other, which also gives it its binding.
 */
static int watch_pool(struct pool *pool)
{
	struct pool_state *state = pool_get(pool->pmd, false);
	unsigned int count, done = 0;
	struct thin_c **seen, *tc;

	if (!state)
		return -ENOMEM;

	guard(mutex)(&state->watch_mutex);
	if (state->quiesced)
		return 0;

	if (!state->snap_wq)
		state->snap_wq = alloc_snap_wq();
	if (!state->snap_wq)
		return -ENOMEM;
	scoped_guard(mutex, &state->create_mutex)
		state->watched = true;
	flush_workqueue(pool->wq);

	/* Those that come later are at the end of the list, and find the state when they resume. */
	count = count_thins(pool);
	seen = kvmalloc_array(count, sizeof(*seen), GFP_KERNEL);
	if (!seen)
		return -ENOMEM;
	while (done < count && (tc = get_other_thin(pool, seen, done))) {
		seen[done++] = tc;
		dm_internal_suspend_noflush(tc->thin_md);
		dm_internal_resume(tc->thin_md);
		thin_put(tc);
	}
	kvfree(seen);
	state->quiesced = true;

	return 0;
}

static bool is_bound(struct mapped_device *md)
{
	u64 binding;

	guard(rcu)();
	return find_bound_thin(md, &binding);
}

struct dm_thin_handle *dm_thin_get_handle(struct block_device *bdev)
{
	struct mapped_device *md;
	struct thin_c *tc;
	int r;

	if (!READ_ONCE(hooked))
		return ERR_PTR(-EOPNOTSUPP);

	/* The caller's reference to bdev is what keeps md from being freed. */
	md = dm_get_md(bdev->bd_dev);
	if (!md)
		return ERR_PTR(-ENODEV);
	dm_put(md);

	tc = get_live_thin(md);
	if (!tc)
		return ERR_PTR(-EINVAL);
	r = watch_pool(tc->pool);
	thin_put(tc);
	if (r)
		return ERR_PTR(r);

	return is_bound(md) ? (struct dm_thin_handle *)md : ERR_PTR(-EAGAIN);
}
EXPORT_SYMBOL_GPL(dm_thin_get_handle);

static struct thin_state *get_bound_thin(struct dm_thin_handle *h, u64 *binding)
{
	struct thin_state *thin;

	guard(rcu)();
	thin = find_bound_thin((struct mapped_device *)h, binding);
	if (thin)
		thin_get(thin->tc);

	return thin;
}

/* As dm_thin_find_block(), which keeps the time to itself. */
static int find_block(struct thin_state *thin, dm_block_t block, bool may_block,
		      struct dm_thin_mapping *m)
{
	struct dm_thin_device *td = thin->tc->td;
	struct dm_pool_metadata *pmd = td->pmd;
	dm_block_t keys[2] = { td->id, block };
	__le64 value;
	int r;

	guard(rwsem_read)(&pmd->root_lock);
	if (pmd->fail_io)
		return -EINVAL;
	r = dm_btree_lookup(may_block ? pmd->info : pmd->nb_info, pmd->root, keys, &value);
	if (r)
		return r;

	m->data_block = le64_to_cpu(value) >> TIME_BITS;
	m->time = le64_to_cpu(value) & MAX_TIME;
	m->shared = td->snapshotted_time > m->time;

	return thin->pool->names_lost || pmd->time >= MAX_TIME ? -ESTALE : 0;
}

int dm_thin_lookup(struct dm_thin_handle *h, sector_t sector, bool may_block,
		   struct dm_thin_mapping *m)
{
	sector_t block = sector;
	struct thin_state *thin;
	struct thin_c *tc;
	int r = -ERANGE;

	thin = get_bound_thin(h, &m->binding);
	if (!thin)
		return -ENXIO;

	tc = thin->tc;
	(void)sector_div(block, tc->pool->sectors_per_block);
	if (sector < thin->len)
		r = find_block(thin, block, may_block, m);
	m->pool_id = thin->pool->id;
	m->thin_id = tc->dev_id;
	m->block_sectors = tc->pool->sectors_per_block;
	/* Pairs with mapping_changed() */
	m->changing = smp_load_acquire(&thin->pool->changing);

	thin_put(tc);
	return r;
}
EXPORT_SYMBOL_GPL(dm_thin_lookup);

u64 dm_thin_binding(struct dm_thin_handle *h)
{
	u64 binding;

	guard(rcu)();
	return find_bound_thin((struct mapped_device *)h, &binding) ? binding : 0;
}
EXPORT_SYMBOL_GPL(dm_thin_binding);

bool dm_thin_writable(struct dm_thin_handle *h)
{
	struct thin_state *thin;
	u64 binding;

	guard(rcu)();
	thin = find_bound_thin((struct mapped_device *)h, &binding);
	/* The worker changes it at any time: it's a hint. */
	return thin && data_race(READ_ONCE(thin->tc->pool->pf.mode)) == PM_WRITE;
}
EXPORT_SYMBOL_GPL(dm_thin_writable);

/* As dm_thin_get_mapped_count() and dm_thin_get_highest_mapped_block(). */
static int get_mapped(struct dm_thin_device *td, dm_block_t *mapped, dm_block_t *highest)
{
	struct dm_pool_metadata *pmd = td->pmd;
	__le64 root;
	int r;

	guard(rwsem_read)(&pmd->root_lock);
	if (pmd->fail_io)
		return -EINVAL;
	*mapped = td->mapped_blocks;
	r = dm_btree_lookup(pmd->tl_info, pmd->root, &td->id, &root);
	if (r)
		return r;

	return min(dm_btree_find_highest_key(pmd->bl_info, le64_to_cpu(root), highest), 0);
}

int dm_thin_get_info(struct dm_thin_handle *h, struct dm_thin_info *info)
{
	dm_block_t mapped = 0, highest = 0;
	struct thin_state *thin;
	struct thin_c *tc;
	u64 binding;
	int r;

	thin = get_bound_thin(h, &binding);
	if (!thin)
		return -ENXIO;

	tc = thin->tc;
	r = get_mapped(tc->td, &mapped, &highest);
	info->pool_id = thin->pool->id;
	info->mapped_sectors = mapped * tc->pool->sectors_per_block;
	info->highest_sector = (highest + 1) * tc->pool->sectors_per_block - 1;
	info->thin_id = tc->dev_id;
	info->creation_time = tc->td->creation_time;
	info->block_sectors = tc->pool->sectors_per_block;

	thin_put(tc);
	return r;
}
EXPORT_SYMBOL_GPL(dm_thin_get_info);

/*
 * Hooks
 */

struct hook {
	const char *name;
	void *wrapper;
	void (*link)(unsigned long address);
	struct ftrace_ops ops;
};

static void notrace redirect(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *ops,
			     struct ftrace_regs *fregs)
{
	struct hook *hook = container_of(ops, struct hook, ops);

	ftrace_regs_set_instruction_pointer(fregs, (unsigned long)hook->wrapper);
}

/*
 * Several users may trace a function, but only one may redirect it.  Permanent:
 * the sysctl ftrace_enabled can't turn the hooks off.
 */
#define HOOK(fn) {							\
	.name = "dm_thin_pool:" #fn,					\
	.wrapper = fn ## _wrapper,					\
	.link = fn ## _link,						\
	.ops = {							\
		.func = redirect,					\
		.flags = FTRACE_OPS_FL_IPMODIFY | FTRACE_OPS_FL_PERMANENT, \
	},								\
}

/* In this order: a pool gets a state by the last two, and then needs all others. */
static struct hook hooks[] = {
	HOOK(dm_thin_insert_block),
	HOOK(dm_thin_remove_range),
	HOOK(dm_pool_abort_metadata),
	HOOK(dm_pool_metadata_close),
	HOOK(__process_bio_read_only),
	HOOK(thin_dtr),
	HOOK(thin_postsuspend),
	HOOK(thin_preresume),
	HOOK(pool_message),
	HOOK(dm_pool_metadata_open),
};

static DEFINE_MUTEX(hooks_mutex);

#ifdef CONFIG_ARM64
/*
 * A function begins with two instructions for ftrace, of which the second is the
 * call.  Static calls are indirect ones here, and go to what comes after that: no
 * place for an indirect call where these are checked.
 */
#if defined(CONFIG_ARM64_BTI_KERNEL) || defined(CONFIG_CFI)
#error "dm-thin-hooks needs a kernel for arm64 that doesn't check indirect calls (BTI, CFI)"
#endif
#define BEFORE_CALL AARCH64_INSN_SIZE
#else
#define BEFORE_CALL 0
#endif

/*
 * Finds the call of ftrace at the beginning of a function of dm-thin's.  Where
 * kprobes don't know of ftrace, ftrace_set_filter_ip() refuses any other place.
 */
static int find_hook(struct hook *hook, unsigned long *location)
{
	struct kprobe probe = { .symbol_name = hook->name, .flags = KPROBE_FLAG_DISABLED };
	int r;

	r = register_kprobe(&probe);
	if (r)
		return r;
	*location = (unsigned long)probe.addr + BEFORE_CALL;
	if (IS_ENABLED(CONFIG_KPROBES_ON_FTRACE) && !(probe.flags & KPROBE_FLAG_FTRACE))
		r = -EOPNOTSUPP;
	unregister_kprobe(&probe);

	return r;
}

struct build_id_note {
	u32 name_size;
	u32 size;
	u32 type;
	char name[4];
	u8 id[20];
};

/* Whether a loaded module is the one that the layout was taken from. */
static bool is_known(const char *module, const char *id)
{
	char path[64], found[2 * sizeof_field(struct build_id_note, id) + 1] = "none";
	struct build_id_note note;
	struct file *file;
	loff_t pos = 0;

	snprintf(path, sizeof(path), "/sys/module/%s/notes/.note.gnu.build-id", module);
	file = filp_open(path, O_RDONLY, 0);
	if (!IS_ERR(file)) {
		if (kernel_read(file, &note, sizeof(note), &pos) == sizeof(note))
			snprintf(found, sizeof(found), "%*phN", (int)sizeof(note.id), note.id);
		filp_close(file, NULL);
	}
	if (!strcmp(found, id))
		return true;

	pr_err("%s is another build than this module was made for (build id %s, not %s) : build dm-drr for the running kernel's own modules\n",
	       module, found, id);
	return false;
}

static void unregister_hooks(unsigned int count)
{
	while (count--) {
		struct hook *hook = &hooks[count];

		/* After ftrace_kill(): calls may come here for ever. */
		while (unregister_ftrace_function(&hook->ops)) {
			pr_crit_once("%s can't be released, as ftrace has failed : reboot\n",
				     hook->name);
			msleep(1000);
		}
		ftrace_free_filter(&hook->ops);
	}
}

static int register_hooks(void)
{
	unsigned long location[ARRAY_SIZE(hooks)];
	int i, r;

	for (i = 0; i < ARRAY_SIZE(hooks); i++) {
		r = find_hook(&hooks[i], &location[i]);
		if (r) {
			if (i || r != -ENOENT)
				pr_err("%s can't be hooked (%d) : this build of dm-thin is not supported\n",
				       hooks[i].name, r);
			return r;
		}
	}
	if (!is_known("dm_thin_pool", DM_THIN_POOL_BUILD_ID) ||
	    !is_known("dm_mod", DM_MOD_BUILD_ID))
		return -EOPNOTSUPP;

	for (i = 0; i < ARRAY_SIZE(hooks); i++) {
		struct hook *hook = &hooks[i];

		hook->link(location[i] + MCOUNT_INSN_SIZE);
		r = ftrace_set_filter_ip(&hook->ops, location[i], 0, 0);
		if (!r)
			r = register_ftrace_function(&hook->ops);
		if (r) {
			pr_err("%s can't be hooked (%d) : look who else redirects it, in /sys/kernel/tracing/enabled_functions\n",
			       hook->name, r);
			ftrace_free_filter(&hook->ops);
			unregister_hooks(i);
			return r;
		}
	}

	return 0;
}

/* -ENOENT if dm-thin-pool isn't loaded. */
static int hook(void)
{
	int r = 0;

	guard(mutex)(&hooks_mutex);
	if (!hooked)
		r = register_hooks();
	if (!r)
		WRITE_ONCE(hooked, true);

	return r;
}

static void unhook(void)
{
	struct thin_state *thin;
	struct pool_state *pool;
	struct hlist_node *tmp;
	int i;

	guard(mutex)(&hooks_mutex);
	if (!hooked)
		return;

	WRITE_ONCE(hooked, false);
	unregister_hooks(ARRAY_SIZE(hooks));

	/* A task that was redirected has counted itself by the end of the first grace period. */
	synchronize_rcu_tasks();
	while (atomic_read(&in_wrappers))
		msleep(20);
	synchronize_rcu_tasks();

	/* The pools first: a snapshot that was given up may still use thin devices. */
	hash_for_each_safe(pools_by_pmd, i, tmp, pool, node) {
		hash_del_rcu(&pool->node);
		pool_free(pool);
	}
	hash_for_each_safe(thins_by_md, i, tmp, thin, node) {
		hash_del_rcu(&thin->node);
		kfree_rcu(thin, rcu);
	}
}

/* The hooks go with dm-thin-pool and come with it: a pin would keep it from being unloaded. */
static int module_event(struct notifier_block *nb, unsigned long state, void *data)
{
	struct module *module = data;

	if (strcmp(module_name(module), "dm_thin_pool"))
		return NOTIFY_DONE;
	if (state == MODULE_STATE_LIVE)
		hook();
	else if (state == MODULE_STATE_GOING)
		unhook();

	return NOTIFY_OK;
}

static struct notifier_block module_notifier = { .notifier_call = module_event };

static int __init dm_thin_hooks_init(void)
{
	int r;

	srcu_init_notifier_head(&thin_notifier);

	r = register_module_notifier(&module_notifier);
	if (r)
		goto bad_notifier;

	r = hook();
	if (r && r != -ENOENT)
		goto bad_hooks;

	return 0;

bad_hooks:
	unregister_module_notifier(&module_notifier);
bad_notifier:
	srcu_cleanup_notifier_head(&thin_notifier);
	return r;
}

static void __exit dm_thin_hooks_exit(void)
{
	unregister_module_notifier(&module_notifier);
	unhook();
	rcu_barrier();
	srcu_cleanup_notifier_head(&thin_notifier);
}

module_init(dm_thin_hooks_init);
module_exit(dm_thin_hooks_exit);

MODULE_SOFTDEP("pre: dm-thin-pool");
MODULE_INFO(dm_thin_pool, DM_THIN_POOL_BUILD_ID); /* For programs */
MODULE_DESCRIPTION("Interface of dm-thin for stacked targets, by hooks");
MODULE_LICENSE("GPL");
