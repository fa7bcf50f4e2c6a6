/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Writes of whole blocks in the place of parts (drr/io/write.rs, rust/io/block_lock.rs), and what dm-thin
 * makes of them. A virtual block has two parts, and is mapped to a shared data block at first.
 *
 * FIRST writes one part, SECOND the other, twice, and both end up at the same virtual block: SECOND passes the same thin
 * device, which it takes for another layer, as the device got another id meanwhile; or another device with the same id. So
 * they have one name of the block in common. Meanwhile all of it is discarded, a snapshot is taken, and somebody writes
 * past the drr devices, though not while a whole block is on its way: nothing would save his part then.
 *
 * Whoever reads a part gets what was last written to it, or is being written; and nobody waits for
 * ever.
 *
 * What dm-thin does with data blocks is taken as given: a write to a shared one, or to an unmapped
 * virtual block, goes to a new one, and the mapping changes when that is written. So the content of
 * a shared block doesn't change, and it doesn't matter when it is copied from donors.
 *
 * -DNO_<GUARD> takes a guard away, see README.rst.
 * Redundant: LOOKUPLOCKED
 */

#define OLD 1
#define ZERO 2
#define BY_FIRST 3
#define BY_SECOND 4	/* and 5 */
#define PAST 6

byte part[2];			/* as the thin device has the virtual block */
bool shared = true;		/* or unmapped: a write needs a new block */
bool mapped = true;
bool cell;			/* dm-thin works on it; no other bio does */

/* Names of the block, and the locks that they lead to. */
#define DEVICE_1 0
#define DEVICE_2 1
#define LAYER_1 2
#define LAYER_2 3
#define LOCKS 4

byte sharers[LOCKS];
bool exclusive[LOCKS];		/* this block's; no other block's is modelled */
bool changed[2];		/* the epoch, since FIRST and SECOND looked */
byte going;			/* whole blocks that were checked and haven't ended */
bool past;			/* a write goes past the drr devices */

/* Values that may be read, and those whose writes have ended, a bit each. */
byte fair[2], settled[2];
byte done;			/* processes */

#define bit(x) (1 << (x))

/* What had ended before this write began is superseded when this one ends. */
#define begin(p, v, prior) prior = settled[p]; fair[p] = fair[p] | bit(v)
#define complete(p, v, prior) \
	fair[p] = (fair[p] & ~prior) | bit(v); settled[p] = settled[p] | bit(v); check()

#define check() assert((fair[0] & bit(part[0])) && (fair[1] & bit(part[1])))
#define new_epoch() changed[0] = true; changed[1] = true

#ifdef NO_ONEDEVICE
#define SAME_DEVICE DEVICE_2
#else
#define SAME_DEVICE DEVICE_1
#endif
#ifdef NO_ONELAYER
#define SAME_LAYER LAYER_2
#else
#define SAME_LAYER LAYER_1
#endif

#ifdef NO_ALONEBEFORE
#define alone(lock) (!exclusive[lock])
#else
#define alone(lock) (!exclusive[lock] && sharers[lock] == 1)
#endif
#ifdef NO_ALONEAFTER
#define taken(lock) false
#else
#define taken(lock) exclusive[lock]
#endif

/*
 * What rust/io/block_lock.rs does. It locks one name after the other; loom runs that (tools/host/dm/src/models). A write to
 * another block that has one of the locks by chance makes for a write that isn't alone, as donors that have nothing do.
 */
inline share() {
	d_step {
		!taken(device) && !taken(layer) -> sharers[device]++; sharers[layer]++;
		new_epoch()
	}
}

inline unshare() {
	sharers[device]--; sharers[layer]--
}

inline make_shared() {
	if
	:: mine -> exclusive[device] = false; exclusive[layer] = false; mine = false
	:: else
	fi
}

#ifdef NO_EPOCH
#define same_epoch(p) true
#else
#define same_epoch(p) (!changed[p])
#endif

/* The part p becomes v: dm-thin copies the other part if it has to. */
inline write_part(p, v) {
	atomic { !cell -> cell = true };
	d_step {
		if
		:: shared -> shared = false; mapped = true; new_epoch()
		:: else
		fi;
		part[p] = v;
		check();
		cell = false
	}
}

/* All of it: no copy. */
inline write_whole(p, v) {
	atomic { !cell -> cell = true };
	if
	:: d_step {
			if
			:: shared -> shared = false; mapped = true; new_epoch()
			:: else
			fi;
			part[p] = v; part[1 - p] = rest;
			check();
			cell = false
		}
	/* The disk fails. Nothing has changed. */
	:: d_step { shared -> failed = true; cell = false }
	fi
}

/* The epoch, the mapping, and donors: of a shared block, what it holds. */
inline look_up(p) {
	changed[p] = false;
	d_step { found = mapped && shared; rest = (found -> part[1 - p] : 0) };
}

/* Drr::change() and Drr::changed() */
inline change(p, v) {
	d_step { begin(p, v, prior) };
	share();
#ifdef NO_LOOKUPLOCKED
	look_up(p);
#endif
	if
	:: d_step { alone(device) && alone(layer) -> exclusive[device] = true; exclusive[layer] = true; mine = true };
#ifndef NO_LOOKUPLOCKED
		look_up(p);
#endif
		if
		:: d_step { found && same_epoch(p) && !past -> going++; whole = true }
		:: true		/* or donors don't have it */
		fi
	:: true
	fi;
	if
	:: whole ->
#ifdef NO_WHOLETOEND
		d_step { make_shared() };
#endif
		write_whole(p, v);
		going--
	:: !whole ->
		d_step { make_shared() };
#ifdef NO_PARTTOEND
		d_step { unshare() };
#endif
		write_part(p, v);
#ifdef NO_PARTTOEND
		d_step { sharers[device]++; sharers[layer]++ };
#endif
	fi;
	d_step {
		if
		:: !failed -> complete(p, v, prior)
		:: else
		fi;
		make_shared();
		unshare();
		rest = 0; prior = 0; found = false; failed = false; whole = false
	}
}

proctype first() {
	byte rest, prior, device = DEVICE_1, layer = LAYER_1;
	bool found, failed, mine, whole;

	change(0, BY_FIRST);
	done++
}

proctype second() {
	byte rest, prior, device, layer;
	bool found, failed, mine, whole;

	if
	:: d_step { device = SAME_DEVICE; layer = LAYER_2 }
	:: d_step { device = DEVICE_2; layer = SAME_LAYER }
	fi;
	change(1, BY_SECOND);
	change(1, BY_SECOND + 1);
	done++
}

/* Of all of the block, through the first drr device. */
proctype discard() {
	byte prior_0, prior_1, device = DEVICE_1, layer = LAYER_1;

	d_step { begin(0, ZERO, prior_0); begin(1, ZERO, prior_1) };
	share();
	atomic { !cell -> cell = true };
	d_step {
		mapped = false; shared = true; new_epoch();
		part[0] = ZERO; part[1] = ZERO;
		check();
		cell = false
	};
	d_step { complete(0, ZERO, prior_0); complete(1, ZERO, prior_1); unshare(); done++ }
}

/* The thin device is suspended for it, so dm-thin works on nothing. */
proctype snapshot() {
	d_step { !cell -> shared = true; done++ }
}

/* A write to the thin device itself. */
proctype below(byte p) {
	byte prior;

	d_step { going == 0 -> past = true; begin(p, PAST, prior) };
	write_part(p, PAST);
	d_step { complete(p, PAST, prior); past = false; done++ }
}

#define PROCESSES 5

init {
	d_step {
		part[0] = OLD; part[1] = OLD;
		fair[0] = bit(OLD); fair[1] = bit(OLD);
		settled[0] = bit(OLD); settled[1] = bit(OLD)
	};
	atomic {
		run first(); run second(); run discard(); run snapshot();
		if
		:: run below(0)
		:: run below(1)
		fi
	};
	if
	:: done == PROCESSES
	:: timeout
	fi;
	assert(done == PROCESSES);
	assert(!sharers[DEVICE_1] && !sharers[DEVICE_2] && !sharers[LAYER_1] && !sharers[LAYER_2]);
	assert(!exclusive[DEVICE_1] && !exclusive[DEVICE_2] && !exclusive[LAYER_1] && !exclusive[LAYER_2]);
	assert(!going && !cell)
}
