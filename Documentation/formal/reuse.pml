/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Data blocks that change hands while they are read: epochs, bindings, and the events of
 * the pool. What is on record for a block is a set of contents here: the page cache has its
 * own model (records.pml), and its events are taken to work.
 *
 * A drr device is on top of a thin device, which is the layer MINE until its table is
 * replaced by that of OTHER. MINE maps block 0, and so does the image. When both are gone
 * a stranger gets the block. Nobody but the stranger may ever read STRANGERS.
 *
 * Each thing that can happen does so at most once, in any order.
 *
 * -DNO_<GUARD> takes a guard away, see README.rst.
 * Redundant: EPOCHBEFORE BINDINGBEFORE KEPTBINDING
 */

#define NOTHING 0	/* what an unmapped block reads as */
#define ORIGINAL 1
#define CHANGED 2
#define OTHERS 3
#define STRANGERS 4

#define MINE 0
#define OTHER 1
#define UNMAPPED 3
#define READERS 2

/* Blocks: 0 as above, 1 of OTHER, 2 free until MINE breaks sharing. */
byte content[3] = { ORIGINAL, OTHERS, NOTHING };
byte refs = 2;			/* of block 0 */
bool shared;			/* block 0 is */
bool taken;			/* by the stranger */
byte map[2] = { 0, 1 };
bool cell;			/* dm-thin's worker changes MINE's mapping */
byte layer = MINE;		/* of the thin device's table */
byte binding = 1;		/* 0 while it is suspended */

byte epoch[2];
byte known_layer = MINE;	/* the drr target's idea of it */
byte recs;			/* contents on record for block 0, a bit each */
bool pending[READERS];		/* a record whose page the reader has locked still */
byte pending_content[READERS];

/* Contents that the device has had since the read began. A change that isn't completed counts as none. */
byte fair[READERS];
byte before;			/* what it would be without */

/* A lookup that is kept for other reads, of block 0. */
bool kept;
byte kept_layer, kept_epoch, kept_bound;

#define bit(x) (1 << (x))
#define value (map[layer] == UNMAPPED -> NOTHING : content[map[layer]])
#define old_value (before -> bit(before) : 0)
#define now_fair() fair[0] = fair[0] | bit(value); fair[1] = fair[1] | bit(value)

/* One step: whatever is on record all the while is found, see bits.pml. */
inline forget_block() {
	d_step { recs = 0; pending[0] = false; pending[1] = false }
}

inline allocated_event() {
#ifndef NO_REALLOCATION
	forget_block()
#else
	skip
#endif
}

inline unmapped_event() {
#ifndef NO_EPOCHEVENT
	epoch[MINE]++
#else
	skip
#endif
}

/* drr/epoch.rs and dm_thin_binding(), asked at three places. */
#ifdef NO_EPOCH
#define same_epoch true
#else
#define same_epoch (epoch[l] == e)
#endif
#ifdef NO_BINDING
#define same_binding true
#else
#define same_binding (binding == bound)
#endif

#ifdef NO_EPOCHHIT
#define hit_epoch true
#else
#define hit_epoch same_epoch
#endif
#ifdef NO_BINDINGHIT
#define hit_binding true
#else
#define hit_binding same_binding
#endif
#ifdef NO_EPOCHBEFORE
#define before_epoch true
#else
#define before_epoch same_epoch
#endif
#ifdef NO_BINDINGBEFORE
#define before_binding true
#else
#define before_binding same_binding
#endif
#ifdef NO_EPOCHAFTER
#define after_epoch true
#else
#define after_epoch same_epoch
#endif
#ifdef NO_BINDINGAFTER
#define after_binding true
#else
#define after_binding same_binding
#endif

/* drr/mappings.rs: a lookup of the same epoch and binding will do. */
#ifdef NO_KEPTEPOCH
#define kept_epoch_is true
#else
#define kept_epoch_is (kept_epoch == e)
#endif
#ifdef NO_KEPTBINDING
#define kept_binding_is true
#else
#define kept_binding_is (kept_bound == binding)
#endif
#define may_use_kept (kept && kept_layer == l && kept_epoch_is && kept_binding_is)

/* A read by the drr device, once: drr/target.rs. */
active [READERS] proctype reader() {
	byte l, e, bound, got;
	bool place;

end:	atomic { binding != 0 -> fair[_pid] = bit(value) | old_value; place = false };
	l = known_layer;
	e = epoch[l];
	/* The lookup; what isn't block 0 can't be on record here. */
	atomic {
		if
		:: may_use_kept ->
			/* As if this read had looked it up then. */
			place = true; bound = kept_bound
#ifdef NO_KEPTEPOCH
			; e = epoch[l]
#else
			; e = kept_epoch
#endif
		:: binding == 0
		:: binding != 0 && layer != l -> known_layer = layer
		:: binding != 0 && layer == l ->
			bound = binding;
#ifdef NO_SHARED
			place = map[layer] == 0
#else
			place = map[layer] == 0 && shared
#endif
			;
			if
			:: place -> kept = true; kept_layer = l; kept_epoch = e; kept_bound = bound
			:: else
			fi
		fi
	};
	if
	:: atomic { place && recs != 0 ->
			/* Any donor: copied. */
			if
			:: recs & bit(ORIGINAL) -> got = ORIGINAL
			:: recs & bit(CHANGED) -> got = CHANGED
			:: recs & bit(OTHERS) -> got = OTHERS
			:: recs & bit(STRANGERS) -> got = STRANGERS
			fi };
		if
		:: hit_epoch ->
			if
			:: hit_binding -> goto served
			:: !hit_binding
			fi
		:: !hit_epoch
		fi
	:: true
	fi;
	/* Sent down; a suspended device and dm-thin's cells hold it back. */
	atomic { binding != 0 && !(layer == MINE && cell) -> got = value };
served:		assert(fair[_pid] & bit(got));
	/* end_io; the page is locked until the read completes. */
	if
	:: place ->
		if
		:: before_binding
		:: !before_binding -> goto done
		fi;
		if
		:: before_epoch
		:: !before_epoch -> goto done
		fi;
		atomic { pending[_pid] = true; pending_content[_pid] = got };
		if
		:: after_epoch
		:: !after_epoch -> pending[_pid] = false
		fi;
		if
		:: after_binding
		:: !after_binding -> pending[_pid] = false
		fi
	:: !place
	fi;
done:		atomic {
		if
		:: pending[_pid] -> recs = recs | bit(pending_content[_pid])
		:: !pending[_pid]
		fi;
		pending[_pid] = false; pending_content[_pid] = 0;
		got = 0; e = 0; bound = 0; l = 0; place = false
	}
}

/*
 * A discard, or a write that breaks sharing. Through drr it raises the epoch in `map` too; past
 * it, as here, it doesn't, and that must do.
 */
active proctype changer() {
	atomic { binding != 0 && layer == MINE && !cell -> cell = true };
	if
	:: atomic { map[MINE] == 0 -> before = value; map[MINE] = UNMAPPED; refs--; now_fair() }
	:: atomic { map[MINE] == 0 && shared ->
			before = value; content[2] = CHANGED; map[MINE] = 2; refs--; now_fair() }
	:: atomic { map[MINE] == 0 && !shared -> content[0] = CHANGED; now_fair(); cell = false };
		goto end
	fi;
	unmapped_event();
	/* Only now is the bio completed. */
	atomic { before = 0; cell = false };
end:	skip
}

/* The thin device's table is replaced; MINE may be deleted then, which raises no epoch. */
active proctype administrator() {
end:	if
	:: atomic { !cell -> binding = 0 };
		atomic { layer = OTHER; now_fair() };
		binding = 2;
		atomic {
			if
			:: map[MINE] == 0 -> refs--
			:: else
			fi
		}
	fi
}

/* Snapshots make block 0 shared, also one that is rolled back again. */
active proctype pool() {
	bool rolled_back;

end:	do
	:: atomic { !shared && refs != 0 && !taken -> shared = true }
	:: atomic { shared && !rolled_back && !taken ->
			rolled_back = true; shared = false;
#ifndef NO_ROLLBACK
			epoch[MINE]++; forget_block()
#endif
		}
	od
}

active proctype image() {
end:	atomic { refs != 0 -> refs-- }
}

/* Allocates block 0, fills it, is snapshotted, and read through another drr device. */
active proctype stranger() {
	/* The same worker does both: not before the event of what was freed. */
end:	atomic { refs == 0 && !cell -> refs = 1; shared = false; taken = true };
	allocated_event();
	atomic { content[0] = STRANGERS; shared = true; recs = recs | bit(STRANGERS) }
}

/* What is on record for a block that may be read is what it holds. */
active proctype invariant() {
end:	atomic {
		refs != 0 && shared && (recs & ~bit(content[0])) -> assert(false)
	}
}
