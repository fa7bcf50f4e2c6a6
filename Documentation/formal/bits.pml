/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The pages of a run, and the index that it is found in: rust/bits.rs, rust/index.rs and
 * rust/directory.rs.
 *
 * Two pages of one mapping can be in a run. Each is read and recorded, and removed from the
 * page cache; meanwhile the pool ends all records of the block, and a receiver looks for a
 * donor. When no page is left the inode goes, and is freed by RCU.
 *
 * -DNO_<GUARD> takes a guard away, see README.rst.
 * Redundant: SECONDLOOK
 */

#define RUNS 3
#define PAGES 2
#define ALL 3
#define DEAD 4
#define NONE RUNS

byte bits[RUNS];		/* a bit for each page, and DEAD */
bool reverse[RUNS], forward[RUNS];	/* linked on that side */
bool used[RUNS], unlinked[RUNS];
bool reverse_lock, forward_lock;
bool cached[PAGES], locked[PAGES], done[PAGES];
bool inode_freed;

/* RCU: a critical section of the receiver, and whether the inode's freeing waits for it. */
bool reading, counted;

inline clear(r, mask) {
	/* One compare-and-swap. */
	atomic {
		died = false;
		if
		:: (bits[r] & mask) && !(bits[r] & DEAD) ->
			bits[r] = bits[r] & ~(mask);
			if
			:: (bits[r] & ALL) == 0 ->
#ifndef NO_DEAD
				bits[r] = DEAD;
#endif
				died = true
			:: else
			fi
		:: else
		fi
	};
	if
	:: died ->
		atomic { !reverse_lock -> reverse_lock = true };
		/* Index::remove() does nothing the second time; that there is none is bits.rs'. */
		assert(reverse[r]);
		reverse[r] = false;
		atomic { !forward_lock -> forward_lock = true };
		forward[r] = false;
		forward_lock = false;
		reverse_lock = false;
		unlinked[r] = true
	:: else
	fi
}

/* Adds a page to a run, unless it is dead: one compare-and-swap. */
inline set(r, mask, ok) {
	atomic {
		if
		:: bits[r] & DEAD -> ok = false
		:: else -> bits[r] = bits[r] | (mask); ok = true
		fi
	}
}

/* A page: read and recorded once, and removed. */
proctype page(byte number) {
	bool ok, died;
	byte r, new;

	atomic { cached[number] = true; locked[number] = true };
	/* Directory::enter() */
	ok = false;
	r = 0;
	do
	:: r < RUNS && !ok ->
		if
		:: reverse[r] -> set(r, 1 << number, ok)
		:: else
		fi;
		r++
	:: else -> break
	od;
	if
	:: !ok ->
		/* Index::insert_unless(): looks again, under the lock. */
		atomic { !reverse_lock -> reverse_lock = true };
#ifndef NO_SECONDLOOK
		r = 0;
		do
		:: r < RUNS && !ok ->
			if
			:: reverse[r] -> set(r, 1 << number, ok)
			:: else
			fi;
			r++
		:: else -> break
		od;
#endif
		if
		:: !ok ->
			atomic {
				new = 0;
				do
				:: used[new] -> new++
				:: else -> break
				od;
				used[new] = true;
				bits[new] = 1 << number
			};
			reverse[new] = true;
			atomic { !forward_lock -> forward_lock = true };
			forward[new] = true;
			forward_lock = false
		:: else
		fi;
		reverse_lock = false
	:: else
	fi;
	locked[number] = false;

	/* Removal from the page cache; the event comes first. */
	locked[number] = true;
	r = 0;
	do
	:: r < RUNS ->
		if
		:: reverse[r] -> clear(r, 1 << number)
		:: else
		fi;
		r++
	:: else -> break
	od;
	atomic { cached[number] = false; done[number] = true; r = 0; new = 0 };
	/* Nothing is left that an event should have found. */
	assert(!(bits[0] & (1 << number)) && !(bits[1] & (1 << number)) && !(bits[2] & (1 << number)))
}

/* The pool: AccessTable::forget_block(), all runs of the block. */
active proctype forget() {
	byte r;
	bool died;

	do
	:: r < RUNS ->
		if
		:: forward[r] -> clear(r, ALL)
		:: else
		fi;
		r++
	:: else -> break
	od;
	r = 0
}

/* The inode is gone with its pages; its memory after a grace period. */
active proctype inode() {
end:	atomic { done[0] && done[1] -> counted = reading };
	atomic { !counted -> inode_freed = true }
}

/* drr/copy.rs, up to the look into the mapping. */
active proctype receiver() {
	byte r;

end:	do
	:: reading = true;
		r = 0;
		do
		:: r < RUNS ->
			if
			:: forward[r] ->
#ifndef NO_DEADCHECK
				if
				:: bits[r] & ALL -> assert(!inode_freed)
				:: else
				fi
#else
				assert(!inode_freed)
#endif
			:: else
			fi;
			r++
		:: else -> break
		od;
		atomic { reading = false; counted = false; r = 0 }
	od
}

init {
	atomic { run page(0); run page(1) }
}
