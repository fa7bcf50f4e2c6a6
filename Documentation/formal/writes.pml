/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Writes of whole blocks in the place of parts (drr/write.rs, rust/blocklock.rs), and what dm-thin
 * makes of them. A virtual block has two parts, and is mapped to a shared data block at first.
 *
 * FIRST writes one part, SECOND the other, twice, through another drr device on the same thin device.
 * Meanwhile all of it is discarded, a snapshot is taken, and somebody writes past the drr devices,
 * though not while a whole block is on its way: nothing would save his part then.
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

byte sharers[2];
bool exclusive[2];
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

#ifdef NO_ONELOCK
#define lock(p) (p)
#else
#define lock(p) 0
#endif

#ifdef NO_ALONEBEFORE
#define alone(p) (!exclusive[lock(p)])
#else
#define alone(p) (!exclusive[lock(p)] && sharers[lock(p)] == 1)
#endif
#ifdef NO_ALONEAFTER
#define may_share(p) true
#else
#define may_share(p) (!exclusive[lock(p)])
#endif
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
	d_step { may_share(p) -> sharers[lock(p)]++; new_epoch() };
#ifdef NO_LOOKUPLOCKED
	look_up(p);
#endif
	if
	:: d_step { alone(p) -> exclusive[lock(p)] = true; mine = true };
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
		d_step { exclusive[lock(p)] = false; mine = false };
#endif
		write_whole(p, v);
		going--
	:: !whole ->
		d_step {
			if
			:: mine -> exclusive[lock(p)] = false; mine = false
			:: else
			fi
		};
#ifdef NO_PARTTOEND
		sharers[lock(p)]--;
#endif
		write_part(p, v);
#ifdef NO_PARTTOEND
		sharers[lock(p)]++;
#endif
	fi;
	d_step {
		if
		:: !failed -> complete(p, v, prior)
		:: else
		fi;
		if
		:: mine -> exclusive[lock(p)] = false
		:: else
		fi;
		sharers[lock(p)]--;
		rest = 0; prior = 0; found = false; failed = false; mine = false; whole = false
	}
}

proctype first() {
	byte rest, prior;
	bool found, failed, mine, whole;

	change(0, BY_FIRST);
	done++
}

proctype second() {
	byte rest, prior;
	bool found, failed, mine, whole;

	change(1, BY_SECOND);
	change(1, BY_SECOND + 1);
	done++
}

/* Of all of the block, through the first drr device. */
proctype discard() {
	byte prior_0, prior_1;

	d_step { begin(0, ZERO, prior_0); begin(1, ZERO, prior_1) };
	d_step { may_share(0) -> sharers[lock(0)]++; new_epoch() };
	atomic { !cell -> cell = true };
	d_step {
		mapped = false; shared = true; new_epoch();
		part[0] = ZERO; part[1] = ZERO;
		check();
		cell = false
	};
	d_step { complete(0, ZERO, prior_0); complete(1, ZERO, prior_1); sharers[lock(0)]--; done++ }
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
	assert(!sharers[0] && !sharers[1] && !exclusive[0] && !exclusive[1] && !going && !cell)
}
