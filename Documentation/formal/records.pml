/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One page of a donor's page cache, the record that says what it holds, and a
 * receiver that copies from it.
 *
 * The page is one page of a folio that has at least one more. The block that it is read
 * from at first is shared, so the block's content is ORIGINAL for good; a record says
 * that the page holds it. Written back, the page's file moves to a block of its own.
 *
 * -DNO_<GUARD> takes a guard away, see README.rst.
 * Redundant: DIRTYFOLIO
 */

/* What the page holds: what the shared block does, or anything else. */
#define ORIGINAL true
#define CHANGED false	/* by the donor */
#define ZEROED false	/* a part of it */
#define GARBAGE false	/* left by a read that failed */

#define FREE 0
#define DONOR 1
#define MEMORY 2
#define RECEIVER 3
#define READER 4

/* The folio. `mine`: the receiver holds a reference, to this folio and no other. */
bool content = GARBAGE, cached, uptodate, dirty, writeback, writable, mine;
byte folio_lock = FREE;
/* invalidate_lock, exclusively; readahead takes it shared while it adds a folio. */
bool exclusive;
/* The page may be about to be zeroed: it isn't to be recorded. */
bool withheld;
/* The file's block is still the shared one. */
bool at_home = true;
/* The page is on record as holding what the shared block holds. */
bool record;

#define unlock_folio() folio_lock = FREE

/* The hooks: rust/directory.rs, under the event's locks. */
inline dirty_event() {
#ifndef NO_DIRTYHOOK
	record = false
#else
	skip
#endif
}

inline removal_event() {
#ifndef NO_REMOVALHOOK
	record = false
#else
	skip
#endif
}

/*
 * AccessTable::truncates() in drr/access.rs: on entry to the truncation, no folio is locked.
 * alone: nobody can begin to read the page into the cache, as invalidate_lock is held.
 */
inline truncation_event(alone) {
#ifndef NO_TRUNCATION
#ifndef NO_WITHHOLD
	if
	:: !(alone) || (cached && !uptodate) -> withheld = true
	:: else
	fi;
#endif
	record = false
#else
	skip
#endif
}

/* folio_mark_dirty(): a dirty folio raises no second event. */
inline mark_dirty() {
	if
	:: !dirty -> dirty = true; dirty_event()
	:: dirty
	fi
}

/* A new folio, locked, that nobody else can have a reference to. */
inline add_folio(who) {
	cached = true; uptodate = false; dirty = false; writable = false;
	mine = false; content = GARBAGE; folio_lock = who
}

inline remove_folio() {
	removal_event();
	d_step { cached = false; mine = false; writable = false; content = GARBAGE }
}

/*
 * drr/target.rs, end_io: the reader has the folio locked. `fresh`: by readahead, into a
 * folio that it has just made. from_shared: what the lookup said.
 */
inline end_io(ok, fresh, from_shared) {
	if
#ifndef NO_READERROR
	:: !(ok) -> record = false
#endif
#ifndef NO_READAHEAD
	:: !(fresh) && (ok) -> record = false
#endif
	:: else ->
		if
#ifndef NO_DIRTYFOLIO
		:: dirty || writeback
#endif
		:: else ->
			if
			:: from_shared ->
				record = true;
				if
				:: withheld -> record = false
				:: else
				fi
			:: else
			fi
		fi
	fi
}

/* Reads the page's block into the locked folio; it may fail. */
inline read_block(fresh, ok) {
	from_shared = at_home;
	if
	:: atomic { content = at_home; ok = true }
	:: atomic { content = GARBAGE; ok = false }
	fi;
	end_io(ok, fresh, from_shared);
}

/* Readahead: the folio is new, and nobody need wait for it. */
active proctype reader() {
	bool ok, from_shared;

end:	do
	:: atomic { !cached && !exclusive && folio_lock == FREE -> add_folio(READER) };
		read_block(true, ok);
		atomic { uptodate = ok; unlock_folio() }
	od
}

/* The donor's system calls. */
active proctype donor() {
	bool ok, from_shared, alone;

end:	do
	/* read_folio(): the folio was there, and isn't up to date. */
	:: atomic { cached && !uptodate && folio_lock == FREE -> folio_lock = DONOR };
		if
		:: cached && !uptodate ->
			read_block(false, ok);
			if
			:: ok -> uptodate = true
			:: else
			fi
		:: else
		fi;
		unlock_folio()

	/* write(): part of the page. write_begin reads it first. */
	:: atomic {
			folio_lock == FREE && !exclusive ->
			if
			:: cached -> folio_lock = DONOR
			:: else -> add_folio(DONOR)
			fi
		};
		ok = true;
		if
		:: !uptodate -> read_block(false, ok)
		:: else
		fi;
		if
		:: ok ->
			content = CHANGED;
			if
			:: true -> mark_dirty(); uptodate = true
			/* Copied short into a folio that wasn't up to date, and killed. */
			:: !uptodate -> uptodate = true
			fi
		:: else
		fi;
		unlock_folio()

	/* write() to another page of the folio, which leaves ours to be read. */
	:: atomic {
			folio_lock == FREE && !exclusive ->
			if
			:: cached -> folio_lock = DONOR
			:: else -> add_folio(DONOR)
			fi
		};
		mark_dirty();
		unlock_folio()

	/* A store through a shared mapping: page_mkwrite, then without any lock. */
	:: atomic { cached && uptodate && folio_lock == FREE -> folio_lock = DONOR };
		if
		:: cached && uptodate -> writable = true; mark_dirty()
		:: else
		fi;
		unlock_folio()
	:: atomic { writable && cached -> content = CHANGED }

	/*
	 * Truncation into the page, or a hole punched in it; by those who have failed to write
	 * without invalidate_lock.
	 */
	:: if
		:: exclusive = true; alone = true
		:: alone = false
		fi;
		truncation_event(alone);
		atomic { folio_lock == FREE -> folio_lock = DONOR };
		if
		:: cached && uptodate -> content = ZEROED
		:: else
		fi;
		unlock_folio();
		/* Clean as yet, and it may stay so: the file system may fail. */
		if
		:: atomic { folio_lock == FREE -> folio_lock = DONOR };
			if
			:: cached && uptodate -> mark_dirty()
			:: cached && !uptodate && !dirty && !writeback -> remove_folio()
			:: else
			fi;
			unlock_folio()
		:: true
		fi;
		exclusive = false
	od
}

/* Writes back, and takes away what is clean. */
active proctype memory() {
end:	do
	:: atomic { cached && dirty && uptodate && !writeback && folio_lock == FREE ->
			folio_lock = MEMORY };
		/* Write-protected before it is clean. */
		writable = false;
		atomic { dirty = false; writeback = true };
		unlock_folio();
		at_home = false;
		writeback = false
	:: atomic { cached && !dirty && !writeback && folio_lock == FREE -> folio_lock = MEMORY };
		if
		:: cached && !dirty && !writeback -> remove_folio()
		:: else
		fi;
		unlock_folio()
	od
}

/* drr/copy.rs */
active proctype receiver() {
end:	do
	:: record ->	/* found, under RCU */
		if
		:: atomic { cached -> mine = true }	/* folio_try_get() */
		:: !cached -> goto end
		fi;
#ifndef NO_FOLIOLOCK
		if
		:: atomic { folio_lock == FREE -> folio_lock = RECEIVER }
		:: folio_lock != FREE -> mine = false; goto end
		fi;
#endif
		if
		:: mine		/* still in the mapping */
		:: !mine -> goto unlock
		fi;
#ifndef NO_RECHECK
		if
		:: record
		:: !record -> goto unlock
		fi;
#endif
		if
#ifndef NO_DIRTYFOLIO
		:: dirty || writeback -> goto unlock
#endif
		:: !uptodate -> goto unlock
		:: else
		fi;
		/* The copy takes its time. */
		assert(content == ORIGINAL);
		assert(content == ORIGINAL);
unlock:		atomic {
			if
			:: folio_lock == RECEIVER -> folio_lock = FREE
			:: else
			fi;
			mine = false
		}
	od
}

/* A record is true whenever nobody holds the lock under which it is ended. */
active proctype invariant() {
	atomic {
		record && folio_lock == FREE && !(cached && content == ORIGINAL) ->
		assert(false)
	}
}
