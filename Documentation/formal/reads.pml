/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Reads that are served from page caches: name the content, copy it, prove it (drr/io/read.rs,
 * drr/io/copy.rs, drr/target.rs, drr/access/epoch.rs, drr/access/mappings.rs, drr/pool.rs).
 *
 * A pool has two data blocks and two thin devices, each of one virtual block of one page. Node 0
 * has device 0. Node 1 has device 1, and later a snapshot of device 0 in its place. Both nodes have
 * a drr target. A read arrives, takes a stamp, and looks its mapping up or uses a lookup that was
 * kept. Then it is given a copy that was proven, or goes to the disk and enters a digest.
 * Meanwhile EVENTS of these happen, in any order: a device is written or discarded, the snapshot
 * is taken, all targets are removed and created again, the metadata is rolled back, the pool is
 * activated anew.
 *
 * A page on record may be modified at any moment, without any event. So pages need no variables:
 * a copy of one is what the disk gave, or something else. A record may end at any moment, too, and
 * leave its digest to another record of the name. So a read may pass a digest by, and digests
 * stay until all targets are removed.
 *
 * What must hold:
 * - a read is given what its own mapping held at some moment between its arrival and its end;
 * - each digest is that of the content that its name stands for.
 *
 * -DNO_<RULE> takes a rule away, see README.rst. A rule that is an order of steps has an #ifdef.
 */

#ifndef EVENTS
#define EVENTS 3
#endif

/* Contents, and their digests. */
#define NONE 0
#define ZEROES 1	/* what an unmapped block reads as, and a discarded one */
#define ORIGINAL 2	/* writes write 3 and more */
#define OTHER 7

#define UNMAPPED 2	/* in the place of a block */

/* dm-thin: data blocks, and for each device its mapping and when it was snapshotted. */
byte content[2] = ORIGINAL;
bool reserved[2];		/* allocated and not mapped yet, or unmapped and not free yet */
byte map[2], mapped_at[2], snapped_at[2] = 1, time = 1;
byte committed;		/* map[0] after a roll-back */
bool names_lost;
bool in_flight[2];		/* a write or a discard */
bool changing[2];		/* and it is changing a mapping */
byte activation;		/* of the pool */
byte snapshots;		/* that were taken */
byte binding[2], bindings;	/* 0 while the node is suspended */

/* DRR: what targets take for their layer, changes by thin id, digests by name, a kept lookup. */
bool targets = true, settled = true;
byte layer[2], begun[3], ended[3], digest[13];
byte kept, kept_layer, kept_begun, kept_binding;

/* For the assertions: what a read's mapping has held since it arrived; what names stand for. */
byte fair[2], named[13];
byte events = EVENTS, written = ORIGINAL, i;

#define is_mapped(n) (map[n] != UNMAPPED)
#define is_shared(n) (is_mapped(n) && snapped_at[n] > mapped_at[n])
#define is_unused(b) (map[0] != b && map[1] != b && !reserved[b])
#define value(n) (is_mapped(n) -> content[map[n]] : ZEROES)
#define layer_of(n) (3 * activation + (n -> 1 + snapshots : 0))
#define thin_id(l) ((l) % 3)
#define name_of(n) (1 + 6 * activation + 3 * map[n] + mapped_at[n])

/* Whether a macro is defined, as in <linux/kconfig.h>; and what must hold unless it is. */
#define PLACEHOLDER_1 0,
#define SECOND(ignored, value, ...) value
#define IS__(arg) SECOND(arg 1, 0)
#define IS_(value) IS__(PLACEHOLDER_##value)
#define is(macro) IS_(macro)
#define rule(macro, holds) (is(macro) || (holds))

/* The digest of a name. */
#define timed(name) (is(NO_TIME) -> (name) - ((name) - 1) % 3 : (name))
#define known(name) digest[(is(NO_ACTIVATION) -> (timed(name) - 1) % 6 + 1 : timed(name))]

/* The lowest bit of fair is set while there is a read. */
#define bit(x) (1 << (x))
#define see(n) fair[n] = (fair[n] > 1 -> fair[n] | bit(value(n)) : fair[n])

/* If a device's block has become shared, its content has a name. */
inline give_name(n) {
	if
	:: is_shared(n) && !names_lost ->
		named[name_of(n)] = (named[name_of(n)] -> named[name_of(n)] : content[map[n]]);
		assert(!known(name_of(n)) || known(name_of(n)) == named[name_of(n)])
	:: else
	fi
}

#define take_stamp() \
	stamp = begun[thin_id(l)]; quiet = rule(NO_QUIET, stamp == ended[thin_id(l)])

proctype reader(byte n) {
	byte l, stamp, bound, name, got;
	bool quiet;

end:	do
	:: d_step { targets -> fair[n] = 1 | bit(value(n)); l = layer[n]; take_stamp() };
		/* place_at() */
		if
		:: atomic { quiet && kept && kept_layer == l && rule(NO_KEPT, kept_begun == stamp) &&
			    rule(NO_KEPTBINDING, kept_binding == binding[n]) ->
				name = kept; bound = kept_binding }
		:: atomic { binding[n] && rule(NO_LAYER, layer_of(n) == l) && !names_lost &&
			    is_mapped(n) && rule(NO_SHARED, is_shared(n)) ->
				name = name_of(n); bound = binding[n] };
			atomic {
#ifdef NO_STAMPFIRST
				take_stamp();
#endif
				settled = settled || (!changing[0] && !changing[1]);
				quiet = quiet && rule(NO_SETTLED, settled);
				if
				:: quiet ->
					kept = name; kept_layer = l; kept_begun = stamp; kept_binding = bound
				:: else
				fi }
		:: atomic { else -> layer[n] = (binding[n] -> layer_of(n) : l); goto done }
		fi;
		/* Engine::copy_page(), if there is a donor. */
		if
		:: atomic { known(name) ->
				if
				:: got = known(name)
				:: got = OTHER
				fi;
				if
				:: rule(NO_PROOF, got == known(name)) -> assert(fair[n] & bit(got)); goto done
				:: else -> got = NONE
				fi }
		:: true
		fi;
		atomic {
			if
			:: quiet -> fair[n] = 1
			:: else -> goto done
			fi };
		/* The disk; then record(). */
		d_step { binding[n] -> got = value(n) };
		atomic {
			if
			:: is(NO_ALONE) -> got = OTHER
			:: true
			fi;
			if
			:: rule(NO_BEGUN, begun[thin_id(l)] == stamp) && rule(NO_BINDING, binding[n] == bound) ->
				assert(named[name] == got || (is(NO_SHARED) && !named[name]));
				known(name) = (known(name) -> known(name) : got)
			:: else
			fi;
done:			fair[n] = 0; l = 0; stamp = 0; bound = 0; name = 0; got = NONE; quiet = false }
	od
}

/* Changes::begin() and Changes::end(), if there is a target. */
inline tell_begin(when) { begun[id] = begun[id] + (when && targets) }

inline tell_end(when) {
	begun[id] = begun[id] + (when && targets && begun[id] == ended[id] && !is(NO_BALANCE));
	ended[id] = ended[id] + (when && targets)
}

proctype writer(byte n) {
	byte b, id;
	bool was_shared;

end:	do
	:: d_step { events && binding[n] -> events--; in_flight[n] = true;
			b = map[n]; was_shared = is_shared(n); id = thin_id(layer_of(n)) };
		if
		/* A write in place. */
		:: atomic { b != UNMAPPED && !was_shared ->
				written++; content[b] = written; see(0); see(1); goto complete }
		/* A write to a new block. */
		:: d_step { (b == UNMAPPED || was_shared) && (is_unused(0) || is_unused(1)) ->
				b = (is_unused(0) -> 0 : 1); reserved[b] = true;
				written++; content[b] = written; changing[n] = true;
				tell_begin(!is(NO_TOLDBEFORE)); tell_end(is(NO_TOLDAFTER)) };
			d_step { map[n] = b; mapped_at[n] = time; reserved[b] = false; see(n) };
			atomic {
				tell_begin(is(NO_TOLDBEFORE)); tell_end(!is(NO_TOLDAFTER));
				changing[n] = false; goto complete }
		/* A discard, which is passed down if nothing else has the block. */
		:: d_step { b != UNMAPPED -> changing[n] = true; tell_begin(true) };
			d_step { map[n] = UNMAPPED; mapped_at[n] = 0; reserved[b] = true; see(n) };
			d_step { tell_end(true); changing[n] = false };
			atomic {
				if
				:: was_shared && (map[0] == b || map[1] == b)
				:: else -> content[b] = ZEROES; see(0); see(1)
				fi;
				reserved[b] = false;
complete:			in_flight[n] = false; b = 0; id = 0; was_shared = false }
		fi
	od
}

proctype administrator() {
	bool was_away;

end:	do
	/* Node 1 gets the snapshot. Its old device is deleted, without an event. */
	:: d_step { events && !snapshots && binding[1] && !in_flight[1] -> events--; binding[1] = 0 };
		d_step { rule(NO_SUSPEND, !in_flight[0]) ->
			snapshots++; time++; snapped_at[0] = time; snapped_at[1] = time;
			map[1] = map[0]; mapped_at[1] = mapped_at[0]; give_name(0); see(1) };
		d_step { bindings++; binding[1] = bindings }
	/* The pool's last target is removed, and another created. */
	:: d_step { events && !was_away && !fair[0] && !fair[1] -> events--; was_away = true;
			for (i : 1 .. 12) { digest[i] = NONE };
			i = 0; targets = false };
		d_step {
			for (i : 0 .. 2) {
				begun[i] = (is(NO_FRESHCOUNTS) -> 0 : begun[i] + 1); ended[i] = begun[i] };
			i = 0; targets = true; settled = false }
	od
}

inline lose_names() {
	names_lost = !is(NO_NAMESLOST);
	d_step { for (i : 0 .. 2) {
			begun[i] = begun[i] + !is(NO_ROLLBACK); ended[i] = ended[i] + !is(NO_ROLLBACK) };
		i = 0 }
}

proctype roll_back() {
end:	d_step { events -> events-- };
#ifndef NO_LOSTBEFORE
	lose_names();
#endif
	d_step { map[0] = committed; mapped_at[0] = (committed == 1); map[1] = 0; mapped_at[1] = 0;
		snapped_at[0] = 1; snapped_at[1] = 1; time = 1; see(0); see(1) };
#ifdef NO_LOSTBEFORE
	lose_names();
#endif
	/* The pool is closed, and activated anew. */
	d_step { events && binding[1] && !in_flight[0] && !in_flight[1] ->
		events--; activation = 1; names_lost = false;
		binding[0] = bindings + 1; binding[1] = bindings + 2; bindings = bindings + 2;
		give_name(0); give_name(1) }
}

init {
	atomic {
		if
		:: committed = 0		/* device 0 shares a block with device 1, */
		:: committed = 1		/* has one of its own, */
		:: committed = UNMAPPED	/* or none */
		fi;
		map[0] = committed; mapped_at[0] = (committed == 1);
		binding[0] = 1; binding[1] = 2; bindings = 2; layer[1] = 1; give_name(1);
		run reader(0); run reader(1); run writer(0); run writer(1);
		run administrator(); run roll_back() }
}
