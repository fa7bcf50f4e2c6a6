// SPDX-License-Identifier: GPL-2.0
/*
 * A device-mapper target for the benchmarks: makes a RAM disk as slow as a disk.
 *
 *	<start> <length> drr-disk <device> <bytes per second> <latency us> <seek us>
 *
 * The disk has one head.  It serves what waits in one sweep after the other, as
 * drives do, and for each request takes
 *
 *	bytes / rate, to transfer it; the same for a gap of up to 1 MiB before it,
 *	seek, if it doesn't follow the last one in this way,
 *	latency, if nothing was waiting: a queue hides it.
 *
 * Time is kept by the model's clock: if the machine is late with one request,
 * the next ones catch up.
 */
#include <linux/device-mapper.h>
#include <linux/hrtimer.h>
#include <linux/kthread.h>
#include <linux/math64.h>
#include <linux/module.h>

#define DM_MSG_PREFIX "drr-disk"

/* Not worth to go to sleep for. */
#define SLACK_NS (20 * NSEC_PER_USEC)
/* A head waits for the gap to pass by. */
#define GAP_SECTORS ((sector_t)SZ_1M >> SECTOR_SHIFT)

struct disk {
	struct dm_dev *dev;
	unsigned long long rate;
	unsigned int latency_us;
	unsigned int seek_us;

	struct task_struct *thread;
	wait_queue_head_t wait;
	spinlock_t lock;		/* of what waits */
	struct bio_list waiting;

	/* the thread's own */
	struct bio_list sweep;
	sector_t head;
	u64 busy_until;
};

/* Takes the next bio of this sweep, or of the next one: the lowest from the head on. */
static struct bio *next_bio(struct disk *disk)
{
	struct bio *bio, *best = NULL, *lowest = NULL;

	spin_lock_irq(&disk->lock);
	bio_list_merge_init(&disk->sweep, &disk->waiting);
	spin_unlock_irq(&disk->lock);

	bio_list_for_each(bio, &disk->sweep) {
		sector_t sector = bio->bi_iter.bi_sector;

		if (!lowest || sector < lowest->bi_iter.bi_sector)
			lowest = bio;
		if (sector >= disk->head &&
		    (!best || sector < best->bi_iter.bi_sector))
			best = bio;
	}
	bio = disk->seek_us ? (best ?: lowest) : bio_list_peek(&disk->sweep);
	if (bio) {
		struct bio_list rest = BIO_EMPTY_LIST;
		struct bio *other;

		while ((other = bio_list_pop(&disk->sweep)))
			if (other != bio)
				bio_list_add(&rest, other);
		disk->sweep = rest;
		bio->bi_next = NULL;
	}
	return bio;
}

static u64 transfer_ns(struct disk *disk, u64 sectors)
{
	return div64_u64((sectors << SECTOR_SHIFT) * NSEC_PER_SEC, disk->rate);
}

static void serve(struct disk *disk, struct bio *bio)
{
	sector_t sector = bio->bi_iter.bi_sector;
	u64 arrived = *(u64 *)dm_per_bio_data(bio, sizeof(u64));
	u64 takes = transfer_ns(disk, bio_sectors(bio));

	if (disk->busy_until < arrived) {
		disk->busy_until = arrived;
		takes += disk->latency_us * NSEC_PER_USEC;
	}
	if (disk->seek_us) {
		if (sector >= disk->head && sector - disk->head <= GAP_SECTORS)
			takes += transfer_ns(disk, sector - disk->head);
		else
			takes += disk->seek_us * NSEC_PER_USEC;
	}
	disk->busy_until += takes;
	disk->head = bio_end_sector(bio);

	if (disk->busy_until > ktime_get_ns() + SLACK_NS) {
		ktime_t until = ns_to_ktime(disk->busy_until);

		set_current_state(TASK_IDLE);
		schedule_hrtimeout_range(&until, 0, HRTIMER_MODE_ABS);
	}
	submit_bio_noacct(bio);
}

static int disk_thread(void *data)
{
	struct disk *disk = data;

	while (!kthread_should_stop()) {
		struct bio *bio = next_bio(disk);

		if (bio)
			serve(disk, bio);
		else
			wait_event_idle(disk->wait,
					READ_ONCE(disk->waiting.head) ||
					kthread_should_stop());
	}
	return 0;
}

static void disk_dtr(struct dm_target *ti)
{
	struct disk *disk = ti->private;

	if (disk->thread)
		kthread_stop(disk->thread);
	if (disk->dev)
		dm_put_device(ti, disk->dev);
	kfree(disk);
}

static int disk_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct disk *disk;
	int error;

	if (argc != 4) {
		ti->error = "Expected <device> <bytes per second> <latency us> <seek us>";
		return -EINVAL;
	}
	disk = kzalloc_obj(*disk);
	if (!disk) {
		ti->error = "Out of memory";
		return -ENOMEM;
	}
	ti->private = disk;
	spin_lock_init(&disk->lock);
	init_waitqueue_head(&disk->wait);

	if (kstrtoull(argv[1], 10, &disk->rate) || !disk->rate ||
	    kstrtouint(argv[2], 10, &disk->latency_us) ||
	    kstrtouint(argv[3], 10, &disk->seek_us)) {
		ti->error = "Rate, latency and seek time must be numbers, the rate above 0";
		error = -EINVAL;
		goto bad;
	}
	error = dm_get_device(ti, argv[0], dm_table_get_mode(ti->table), &disk->dev);
	if (error) {
		ti->error = "Cannot open device";
		goto bad;
	}
	disk->thread = kthread_run(disk_thread, disk, "drr-disk");
	if (IS_ERR(disk->thread)) {
		error = PTR_ERR(disk->thread);
		disk->thread = NULL;
		ti->error = "Cannot start a thread";
		goto bad;
	}
	ti->per_io_data_size = sizeof(u64);
	ti->num_flush_bios = 1;
	ti->num_discard_bios = 1;
	return 0;

bad:
	disk_dtr(ti);
	return error;
}

static int disk_map(struct dm_target *ti, struct bio *bio)
{
	struct disk *disk = ti->private;
	unsigned long flags;

	bio_set_dev(bio, disk->dev->bdev);
	bio->bi_iter.bi_sector = dm_target_offset(ti, bio->bi_iter.bi_sector);
	if (!bio_sectors(bio) || !bio_has_data(bio))
		return DM_MAPIO_REMAPPED;
	*(u64 *)dm_per_bio_data(bio, sizeof(u64)) = ktime_get_ns();
	spin_lock_irqsave(&disk->lock, flags);
	bio_list_add(&disk->waiting, bio);
	spin_unlock_irqrestore(&disk->lock, flags);
	wake_up(&disk->wait);
	return DM_MAPIO_SUBMITTED;
}

static int disk_iterate_devices(struct dm_target *ti,
				iterate_devices_callout_fn fn, void *data)
{
	struct disk *disk = ti->private;

	return fn(ti, disk->dev, 0, ti->len, data);
}

static struct target_type disk_target = {
	.name = "drr-disk",
	.version = {1, 0, 0},
	.module = THIS_MODULE,
	.ctr = disk_ctr,
	.dtr = disk_dtr,
	.map = disk_map,
	.iterate_devices = disk_iterate_devices,
};
module_dm(disk);

MODULE_DESCRIPTION("device-mapper: a slow disk, for benchmarks");
MODULE_LICENSE("GPL");
