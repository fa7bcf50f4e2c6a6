// SPDX-License-Identifier: GPL-2.0

//! Bios that follow others, or wait for something. A worker is whoever wakes them here: they go on at once.

use core::ptr::NonNull;
use std::sync::{
    atomic::{AtomicUsize, Ordering},
    Arc,
};

use kernel::{
    bindings::bio,
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};
use loom::thread;

use super::{explore, join};
use crate::{
    bindings::{self, JIFFIES},
    block::bio::{Bio, EndedBio, Mapped},
    io::block_lock::{BlockLocks, BlockRange},
    io::in_flight::{Entry, InFlight, InFlightBio, PageRange, LATE_MS},
    io::parked::{Follow, Wake},
    sync::work_queue::WorkQueue,
    target::{PerBio, Target},
};

/// A target.
struct Tester {
    queue: WorkQueue,
    /// Where a bio that goes on is parked again, if it finds the block taken.
    locks: Option<Arc<BlockLocks<CELLS>>>,
}

impl Target for Tester {
    /// Why it goes on.
    type PerBio = Vec<Wake>;
    type InFlight = InFlightBio;
}

impl Follow for Tester {
    fn resume_bio<'a>(&'a self, mut bio: Bio<'a, Self>, why: Wake) -> Mapped {
        bio.data().push(why);
        let Some(locks) = &self.locks else {
            return bio.complete();
        };
        match locks.share(block()) {
            Ok(locked) => {
                locks.unlock(locked);
                bio.complete()
            }
            Err(taken) => {
                let raw = bio.as_ptr();
                let parked = taken.park(bio, self);
                // SAFETY: There as long as its request.
                let completed = unsafe { &(*raw).completed };
                assert_eq!(
                    completed.load(Ordering::Relaxed),
                    0,
                    "a bio completes while its target is at it"
                );
                parked
            }
        }
    }

    fn queue(&self) -> &WorkQueue {
        &self.queue
    }
}

/// A bio, with what travels with it.
struct Request(NonNull<bio>);

// SAFETY: As bios are; the models keep two from using one at the same time.
unsafe impl Send for Request {}
// SAFETY: As above.
unsafe impl Sync for Request {}

impl Request {
    fn new() -> Self {
        let per_bio = Box::into_raw(Box::<PerBio<Tester>>::default());
        let bio = bio {
            per_bio: per_bio.cast(),
            sent: AtomicUsize::new(0),
            completed: AtomicUsize::new(0),
            holds: AtomicUsize::new(0),
        };
        Self(NonNull::from(Box::leak(Box::new(bio))))
    }

    /// The bio in the hands of its target.
    fn bio(&self) -> Bio<'_, Tester> {
        // SAFETY: The models hand it over once.
        unsafe { Bio::from_raw(self.0, 0, true) }
    }

    fn raw(&self) -> &bio {
        // SAFETY: There as long as this.
        unsafe { self.0.as_ref() }
    }

    fn completed(&self) -> usize {
        self.raw().completed.load(Ordering::Relaxed)
    }

    fn woken(&self) -> &[Wake] {
        // SAFETY: There as long as this; asked when it is over.
        unsafe { &(*self.raw().per_bio.cast::<PerBio<Tester>>()).data }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // SAFETY: Made in `new`, and nobody else's.
        unsafe {
            let bio = Box::from_raw(self.0.as_ptr());
            drop(Box::from_raw(bio.per_bio.cast::<PerBio<Tester>>()));
        }
    }
}

/// Two targets, the table, and bios for pages of the same content.
struct World {
    in_flight: KBox<InFlight<Tester>>,
    locks: Arc<BlockLocks<CELLS>>,
    targets: [Tester; 2],
    requests: [Request; 3],
    /// What a leader's end leaves behind is there. Atomic so that nothing else orders it.
    ended: Atomic<bool>,
    /// Of a block that is written; atomic so that nothing else orders them.
    parts: [Atomic<u32>; 2],
}

impl World {
    fn new() -> Arc<Self> {
        Self::make(false)
    }

    /// With targets whose bios need the block when they go on, if `parks_again`.
    fn make(parks_again: bool) -> Arc<Self> {
        JIFFIES.set(0);
        let locks = Arc::new(BlockLocks::new().expect("memory"));
        let target = || Tester {
            queue: WorkQueue::in_threads(c"model").expect("memory"),
            locks: parks_again.then(|| locks.clone()),
        };
        Arc::new(Self {
            targets: [target(), target()],
            locks,
            in_flight: InFlight::new(c"model").expect("memory"),
            requests: [Request::new(), Request::new(), Request::new()],
            ended: Atomic::new(false),
            parts: [Atomic::new(0), Atomic::new(0)],
        })
    }

    /// With the first bio leading, through the first target.
    fn with_leader() -> Arc<Self> {
        let world = Self::new();
        assert!(world.come(0, 0), "nobody else leads");
        world
    }

    /// A bio comes through a target: it leads (and true is returned), or follows, or completes by itself, if
    /// a leader is known and it doesn't want to be the next.
    fn come(&self, at: usize, target: usize) -> bool {
        let (request, target) = (&self.requests[at], &self.targets[target]);
        match self.in_flight.entry(range()) {
            Entry::Vacant(vacant) => {
                assert_eq!(vacant.pages(), range().count);
                vacant.lead(&request.bio(), target, range().count);
                true
            }
            Entry::Occupied(leader) => {
                let _ = leader.follow(request.bio(), target, LATE_MS.into());
                false
            }
        }
    }

    /// As above, when the first bio leads already; never leads.
    fn follow(&self, at: usize) {
        match self.in_flight.entry(range()) {
            Entry::Vacant(_) => {
                let late = JIFFIES.get() > u64::from(LATE_MS);
                let left = self.ended.load(Relaxed);
                assert!(
                    late || left,
                    "a leader is gone, and what it leaves isn't there"
                );
                let _ = self.requests[at].bio().complete();
            }
            Entry::Occupied(leader) => {
                let _ = leader.follow(self.requests[at].bio(), &self.targets[1], LATE_MS.into());
            }
        }
    }

    /// A leader ends, and completes.
    fn land(&self, at: usize) {
        let request = &self.requests[at];
        self.ended.store(true, Relaxed);
        // SAFETY: It leads, and ends once.
        unsafe { EndedBio::<Tester>::from_raw(request.0, true) }.wake_followers();
        let _ = request.bio().complete();
    }

    /// A leader ends, and nobody tells its followers: what travels with it is dropped.
    fn fall(&self, at: usize) {
        let request = &self.requests[at];
        self.ended.store(true, Relaxed);
        let per_bio = request.raw().per_bio.cast::<PerBio<Tester>>();
        // SAFETY: There as long as the request; it leads, and ends once.
        unsafe { (*per_bio).in_flight = InFlightBio::default() };
        let _ = request.bio().complete();
    }

    /// A bio comes that writes a part of a block, and completes when it has written that, or is parked; all of the
    /// block, if it is alone with it.
    fn write(&self, at: usize, part: usize) {
        let bio = self.requests[at].bio();
        let mut locked = match self.locks.share(block()) {
            Ok(locked) => locked,
            Err(taken) => {
                let _ = taken.park(bio, &self.targets[part]);
                return;
            }
        };
        if self.locks.make_exclusive(&mut locked) {
            let other = self.parts[1 - part].load(Relaxed);
            self.parts[1 - part].store(other, Relaxed);
        }
        self.parts[part].store(1, Relaxed);
        self.locks.unlock(locked);
        let _ = bio.complete();
    }

    /// All bios of the list were completed, once.
    fn check(&self, requests: core::ops::Range<usize>) {
        for request in &self.requests[requests] {
            assert_ne!(request.completed(), 0, "a bio is parked for ever");
            assert_eq!(request.completed(), 1, "a bio was completed twice");
            assert!(request.woken().len() <= 1);
        }
        // The next that comes finds nobody.
        assert!(
            matches!(self.in_flight.entry(range()), Entry::Vacant(_)),
            "a leader is left over"
        );
    }
}

/// Cells of the locks.
const CELLS: usize = 2;

/// A block by two names, whose cells differ.
fn block() -> BlockRange {
    BlockRange::new([0, 1], 7..8)
}

fn range() -> PageRange {
    PageRange {
        content: (1, 2),
        first: 3,
        count: 4,
    }
}

fn spawn<T: 'static>(
    world: &Arc<World>,
    what: impl FnOnce(&World) -> T + 'static,
) -> thread::JoinHandle<T> {
    let world = world.clone();
    thread::spawn(move || what(&world))
}

/// Two come while the leader lands.
#[test]
fn a_leader_lands_while_followers_come() {
    explore(Some(3), || {
        let world = World::with_leader();
        let follow = |at: usize| spawn(&world, move |world| world.follow(at));
        let threads = [follow(1), follow(2), spawn(&world, |world| world.land(0))];
        join(threads);
        world.check(0..3);
        for request in &world.requests[1..] {
            assert!(request.woken().is_empty() || request.woken() == [Wake::Landed]);
        }
    });
}

/// The same, but the leader's target does nothing for its followers.
#[test]
fn a_leader_falls_while_followers_come() {
    explore(Some(3), || {
        let world = World::with_leader();
        let follow = |at: usize| spawn(&world, move |world| world.follow(at));
        let threads = [follow(1), follow(2), spawn(&world, |world| world.fall(0))];
        join(threads);
        world.check(0..3);
        for request in &world.requests[1..] {
            assert!(request.woken().is_empty() || request.woken() == [Wake::Left]);
        }
    });
}

/// Whoever comes first leads, and the others follow, or lead when it has landed.
#[test]
fn all_come_at_once() {
    explore(Some(3), || {
        let world = World::new();
        let come = |at: usize| {
            spawn(&world, move |world| {
                if world.come(at, 0) {
                    world.land(at);
                }
            })
        };
        join([come(0), come(1), come(2)]);
        world.check(0..3);
    });
}

/// A device is suspended while its leader lands and a follower comes.
fn released_while_it_lands(target: usize) {
    explore(Some(3), move || {
        let world = World::with_leader();
        world.follow(1);
        let threads = [
            spawn(&world, move |world| {
                world.in_flight.release(&world.targets[target])
            }),
            spawn(&world, |world| world.land(0)),
            spawn(&world, |world| world.follow(2)),
        ];
        join(threads);
        world.check(0..3);
        let [first] = world.requests[1].woken() else {
            panic!("not woken once");
        };
        assert_ne!(*first, Wake::Deferred);
    });
}

#[test]
fn the_leaders_device_is_suspended() {
    released_while_it_lands(0);
}

#[test]
fn the_followers_device_is_suspended() {
    released_while_it_lands(1);
}

/// A leader is late, and lands while its followers are told to go on and another comes.
#[test]
fn a_late_leader_lands() {
    explore(Some(3), || {
        let world = World::with_leader();
        world.follow(1);
        JIFFIES.set(u64::from(LATE_MS) + 1);
        let threads = [
            spawn(&world, |_| {
                bindings::tick();
            }),
            spawn(&world, |world| world.land(0)),
            spawn(&world, |world| world.follow(2)),
        ];
        join(threads);
        world.check(0..3);
        assert!(
            world.requests[2].woken().is_empty(),
            "somebody follows a late leader"
        );
    });
}

/// Whoever writes a whole block doesn't undo what others write to parts of it, and who waits for that goes on.
#[test]
fn no_part_of_a_block_is_lost() {
    explore(Some(3), || {
        let world = World::new();
        let write = |at, part| spawn(&world, move |world| world.write(at, part));
        let threads = [write(0, 0), write(1, 1)];
        world.write(2, 0);
        join(threads);
        world.check(0..3);
        for at in 0..3 {
            // LayerId was parked writes only now.
            if !world.requests[at].woken().is_empty() {
                continue;
            }
            let part = at % 2;
            assert_eq!(world.parts[part].load(Relaxed), 1, "a write is lost");
        }
        // Nothing is left.
        let mut locked = world.locks.share(block()).ok().expect("nobody is alone");
        assert!(world.locks.make_exclusive(&mut locked));
        world.locks.unlock(locked);
    });
}

/// A follower goes on, and is parked again for a block that is written meanwhile. However soon that is over, the
/// bio doesn't complete, and so its target isn't destroyed, while its target's function runs.
#[test]
fn a_bio_that_is_parked_again_completes_late() {
    explore(Some(3), || {
        let world = World::make(true);
        assert!(world.come(0, 0), "nobody else leads");
        world.follow(1);
        let mut locked = world.locks.share(block()).ok().expect("nobody is alone");
        assert!(world.locks.make_exclusive(&mut locked));
        let threads = [
            spawn(&world, |world| world.land(0)),
            spawn(&world, move |world| world.locks.unlock(locked)),
        ];
        join(threads);
        let [Wake::Landed, others @ ..] = world.requests[1].woken() else {
            panic!("not woken by its leader first");
        };
        // By each name of the block, if it has to.
        assert!(others.len() <= 2 && others.iter().all(|why| *why == Wake::Deferred));
        for request in &world.requests[..2] {
            assert_eq!(request.completed(), 1);
        }
    });
}
