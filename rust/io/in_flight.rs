// SPDX-License-Identifier: GPL-2.0

//! Concurrent reads of the same data: one goes to the disk, and the others wait for it.
//!
//! A read that is sent down can *lead*: other reads find it by the pages that it reads. A read of a
//! part of these pages can *follow* it, and is parked. When the leader has ended and the target has
//! handled its end, its followers continue, each in a worker ([`Follow::resume_bio`]). The leader
//! passes no data to its followers, but they may find its pages in the page cache.
//!
//! No read waits for ever. A follower is a parked bio that holds nothing but its own memory, no
//! task waits, and leaders wait only for the device below. If a leader takes longer than the
//! patience of its follower, or if the device of either is being suspended, the follower continues
//! before the leader has ended.
//!
//! Lock order: the lock of a bucket is taken with interrupts off and is a leaf.

use core::{cell::UnsafeCell, marker::PhantomData, ptr, ptr::NonNull};

use kernel::{
    error::from_err_ptr,
    ffi::c_void,
    prelude::*,
    static_lock_class,
    sync::atomic::{Atomic, Relaxed},
    types::Opaque,
};

use crate::{
    bindings,
    block::bio::{Bio, EndedBio, Mapped},
    io::end_later::EndWork,
    io::parked::{go_on, BioLink, BioState, Follow, InFlightList, Kind, Wake},
    jiffies::Since,
    sync::{
        index::{hash, slot},
        irq_lock::{IrqGuard, IrqLock},
    },
    target::{per_bio, PerBioExtension, Sealed},
};

/// Age in milliseconds from which a read in flight can't be followed any more: longer than any
/// healthy disk takes.
pub const LATE_MS: u32 = 1000;
/// Interval in milliseconds at which followers are checked for having waited too long: a fraction
/// of the shortest patience that makes sense, which is longer than a disk takes for a request.
const TICK_MS: u32 = 25;

/// A range of pages of some content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageRange {
    /// Identifies the content.
    pub content: (u64, u64),
    /// Number of the first page within the content.
    pub first: u32,
    /// Number of pages, not zero.
    pub count: u32,
}

impl PageRange {
    fn end(&self) -> u32 {
        // RANGE: Both number pages of one block, and are small.
        self.first + self.count
    }
}

/// Where the link of a leader is.
///
/// # Invariants
///
/// `table` is an [`InFlight`] of the type that `land` belongs to, and lives as long as there are
/// bios of its target type.
#[derive(Clone, Copy)]
struct Lead {
    content: (u64, u64),
    table: NonNull<c_void>,
    land: unsafe fn(&Self, NonNull<BioLink>, bool),
}

/// Private data for each bio of a target whose bios can lead, follow, be deferred, or be completed
/// later.
///
/// The followers of a leader that has ended continue when [`EndedBio::wake_followers`] is called,
/// or when this value is dropped.
pub struct InFlightBio {
    /// Opaque, as other tasks write to the link of a bio that leads or is parked.
    pub(super) link: Opaque<BioLink>,
    /// Present if the bio leads. Then `link` is in a bucket of the table.
    lead: Option<Lead>,
    pub(super) end: Opaque<EndWork>,
    pub(super) has_ended: bool,
}

// SAFETY: The link belongs to the bio, which may be handled by any task.
unsafe impl Send for InFlightBio {}

impl Default for InFlightBio {
    fn default() -> Self {
        Self {
            link: Opaque::uninit(),
            lead: None,
            end: Opaque::uninit(),
            has_ended: false,
        }
    }
}

impl Sealed for InFlightBio {}

impl PerBioExtension for InFlightBio {
    const SENDS_LATER: bool = true;

    fn has_ended(&self) -> bool {
        self.has_ended
    }
}

impl InFlightBio {
    /// If the bio leads, removes it from the table and lets its followers continue. Any context.
    ///
    /// # Safety
    ///
    /// `this` belongs to a bio that is not completed yet and is the caller's.
    unsafe fn wake_followers(this: *mut Self, ok: bool) {
        // SAFETY: By the safety requirements. Other CPUs use only the link.
        let lead = unsafe { (*this).lead.take() };
        if let Some(lead) = lead {
            // SAFETY: As above. The link is in the bucket, and part of a bio that is not completed
            // yet. Called once, as `lead` was taken.
            unsafe {
                let link = Opaque::cast_into(&raw const (*this).link);
                (lead.land)(&lead, NonNull::new_unchecked(link), ok);
            }
        }
    }
}

impl Drop for InFlightBio {
    fn drop(&mut self) {
        // SAFETY: The bio is about to be completed, or given back, by us.
        unsafe { Self::wake_followers(self, false) };
    }
}

impl<T: Follow> EndedBio<'_, T> {
    /// If the bio leads, removes it from the table and lets its followers continue. To be called
    /// when the followers can find the pages of the leader. Any context.
    pub fn wake_followers(&mut self) {
        // SAFETY: Initialised in `map`, and not dropped before the bio completes.
        unsafe {
            let in_flight = &raw mut (*per_bio::<T>(self.as_ptr())).in_flight;
            InFlightBio::wake_followers(in_flight, self.ok());
        }
    }
}

/// Buckets, each with a lock, for leaders by hashed content: more than the reads that begin at the
/// same moment. All leaders of a bucket are walked.
const BUCKETS: usize = 64;

static BUCKET: &CStr = c"dm_inflight";

#[pin_data]
struct Buckets {
    /// The leaders of each bucket.
    #[pin]
    locks: [IrqLock<InFlightList>; BUCKETS],
}

/// Reads in flight that others may follow.
///
/// # Invariants
///
/// Once [`Self::new`] has returned, `raw` is a ticker that has this value as its data.
///
/// # Examples
///
/// A read that follows the read in flight that has all of its pages, or that others may follow if
/// no read in flight has any of them. `forward` sends a bio down.
///
/// ```ignore
/// match self.in_flight.entry(range) {
///     Entry::Occupied(leader) if leader.pages() == range.count => {
///         return leader.follow(bio, self, PATIENCE);
///     }
///     Entry::Vacant(vacant) if vacant.pages() == range.count => {
///         vacant.lead(&bio, self, range.count);
///     }
///     Entry::Occupied(_) | Entry::Vacant(_) => {}
/// }
/// self.forward(bio)
/// ```
pub struct InFlight<T: Follow> {
    raw: UnsafeCell<*mut bindings::dm_rust_ticker>,
    buckets: Pin<KBox<Buckets>>,
    /// Number of followers that wait.
    parked: Atomic<u32>,
    target: PhantomData<fn() -> T>,
}

// SAFETY: Shared data is protected by the locks of the buckets; `raw` is only written in `new`.
unsafe impl<T: Follow> Send for InFlight<T> {}
// SAFETY: As above.
unsafe impl<T: Follow> Sync for InFlight<T> {}

impl<T: Follow> InFlight<T> {
    /// Creates an empty table. `name` is that of the workqueue that checks whether followers have
    /// waited too long. Process context. Fails with `ENOMEM`.
    pub fn new(name: &'static CStr) -> Result<KBox<Self>> {
        let buckets = try_pin_init!(Buckets {
            locks <- pin_init::pin_init_array_from_fn(
                |_| IrqLock::new(InFlightList::EMPTY, BUCKET, static_lock_class!())),
        });
        let this = KBox::new(
            Self {
                raw: UnsafeCell::new(ptr::null_mut()),
                buckets: KBox::pin_init(buckets, GFP_KERNEL)?,
                parked: Atomic::new(0),
                target: PhantomData,
            },
            GFP_KERNEL,
        )?;
        let data = ptr::from_ref::<Self>(&this).cast_mut().cast();
        // SAFETY: The box does not move its content, which frees the ticker when it is dropped.
        let raw = from_err_ptr(unsafe {
            // With a rescuer, as reads on behalf of reclaim may follow.
            bindings::dm_rust_ticker_new(name.as_char_ptr(), true, TICK_MS, Some(Self::tick), data)
        })?;
        // SAFETY: The table is not shared yet.
        unsafe { *this.raw.get() = raw };
        Ok(this)
    }

    fn raw(&self) -> *mut bindings::dm_rust_ticker {
        // SAFETY: Only written in `new`.
        unsafe { *self.raw.get() }
    }

    fn bucket(&self, content: (u64, u64)) -> &IrqLock<InFlightList> {
        let hash = hash(content.0 ^ hash(content.1));
        &self.buckets.locks[slot(hash, BUCKETS)]
    }

    /// Looks for a read in flight of the first pages of `range`. Reads of this content can neither
    /// be added nor removed while the returned value exists.
    pub fn entry(&self, range: PageRange) -> Entry<'_, T> {
        let mut leaders = self.bucket(range.content).lock();
        let now = Since::now();
        let mut found: Option<NonNull<BioLink>> = None;
        let mut limit = range.count;
        leaders.for_each(|link, state| {
            let Kind::Leader {
                range: its, since, ..
            } = &state.kind
            else {
                return;
            };
            if its.content != range.content || since.over(now, LATE_MS) || found.is_some() {
                return;
            }
            if (its.first..its.end()).contains(&range.first) {
                // RANGE: `range` begins within `its`.
                limit = range.count.min(its.end() - range.first);
                found = Some(link);
            } else if its.first > range.first {
                // RANGE: `range` begins before `its`.
                limit = limit.min(its.first - range.first);
            }
        });
        match found {
            Some(leader) => Entry::Occupied(Occupied {
                table: self,
                _leaders: leaders,
                leader,
                pages: limit,
            }),
            None => Entry::Vacant(Vacant {
                table: self,
                leaders,
                range: PageRange {
                    count: limit,
                    ..range
                },
            }),
        }
    }

    /// Lets followers continue that were removed from their leaders.
    fn wake(&self, mut followers: InFlightList, why: Wake) {
        while let Some(link) = followers.pop() {
            self.parked.add(1u32.wrapping_neg(), Relaxed);
            // SAFETY: The link was removed from its list, so it is ours.
            unsafe {
                if let Kind::Follower { why: its, .. } = &mut (*link.as_ptr()).state.kind {
                    *its = why;
                }
                go_on::<T>(link);
            }
        }
    }

    /// Removes the followers for which `goes` returns true from all leaders, and lets them
    /// continue. The arguments of `goes` are the target of the leader, and the follower.
    fn part_ways(&self, why: Wake, goes: impl Fn(NonNull<c_void>, &BioState) -> bool) {
        for bucket in &self.buckets.locks {
            let mut gone = InFlightList::EMPTY;
            let mut leaders = bucket.lock();
            leaders.for_each(|_, state| {
                let target = state.target;
                let Kind::Leader { followers, .. } = &mut state.kind else {
                    return;
                };
                let mut some = followers.take_if(|_, follower| goes(target, follower));
                while let Some(follower) = some.pop() {
                    // SAFETY: The link was removed from its list, so it is ours.
                    unsafe { gone.push(follower) };
                }
            });
            drop(leaders);
            self.wake(gone, why);
        }
    }

    /// Lets all followers continue that follow reads of `target` or are bios of `target`. Process
    /// context.
    pub fn release(&self, target: &T) {
        if self.parked.load(Relaxed) != 0 {
            let target = NonNull::from(target).cast();
            self.part_ways(Wake::Left, |leader, follower| {
                leader == target || follower.target == target
            });
        }
    }

    /// Lets followers continue that have waited too long. Returns whether to run again.
    ///
    /// # Safety
    ///
    /// Called by the ticker with the data of [`Self::new`].
    unsafe extern "C" fn tick(data: *mut c_void) -> bool {
        // SAFETY: By the safety requirements.
        let this = unsafe { &*data.cast::<Self>() };
        let now = Since::now();
        this.part_ways(Wake::Late, |_, follower| match follower.kind {
            Kind::Follower {
                since, patience, ..
            } => since.elapsed(now) > patience,
            Kind::Leader { .. } | Kind::Deferred => false,
        });
        this.parked.load(Relaxed) != 0
    }

    /// Removes a leader that has ended, and lets its followers continue. Any context.
    ///
    /// # Safety
    ///
    /// The table is of this type. `link` is that of the bio for which [`Vacant::lead`] made `lead`,
    /// and which is not completed yet. Called once.
    unsafe fn land(lead: &Lead, link: NonNull<BioLink>, ok: bool) {
        // SAFETY: By the safety requirements; the table lives as long as there are bios of the
        // type.
        let this = unsafe { lead.table.cast::<Self>().as_ref() };
        let mut leaders = this.bucket(lead.content).lock();
        let mut followers = InFlightList::EMPTY;
        let _ = leaders.take_if(|other, state| {
            let lands = other == link;
            if let (true, Kind::Leader { followers: its, .. }) = (lands, &mut state.kind) {
                followers = its.take();
            }
            lands
        });
        drop(leaders);
        this.wake(followers, if ok { Wake::Landed } else { Wake::Left });
    }
}

impl<T: Follow> Drop for InFlight<T> {
    fn drop(&mut self) {
        let raw = self.raw();
        if !raw.is_null() {
            // SAFETY: No bio of a `T` is in flight any more. Waits for workers that are about to
            // end.
            unsafe { bindings::dm_rust_ticker_free(raw) };
        }
    }
}

/// The result of [`InFlight::entry`], with the bucket locked.
pub enum Entry<'a, T: Follow> {
    /// A read of the first pages is in flight.
    Occupied(Occupied<'a, T>),
    /// No read of the first page is in flight.
    Vacant(Vacant<'a, T>),
}

/// A read in flight of the first pages of a range.
///
/// # Invariants
///
/// `leader` is in the list that is locked.
pub struct Occupied<'a, T: Follow> {
    table: &'a InFlight<T>,
    _leaders: IrqGuard<'a, InFlightList>,
    leader: NonNull<BioLink>,
    pages: u32,
}

impl<T: Follow> Occupied<'_, T> {
    /// Returns how many of the pages the read has, from the first on.
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// Returns the target of the read.
    pub fn target(&self) -> &T {
        // SAFETY: By the type invariant the leader is in the table, from which it is removed before
        // it completes. So its target is alive, and it is a `T` as the leader is in this table.
        unsafe { (*self.leader.as_ptr()).state.target.cast::<T>().as_ref() }
    }

    /// Parks `bio` until the read has ended, or for `patience` jiffies. `bio` must not be longer
    /// than [`Self::pages`].
    pub fn follow(self, bio: Bio<'_, T>, target: &T, patience: u64) -> Mapped {
        let table = self.table;
        // SAFETY: We own the bio, and the leader is in the bucket, which is locked.
        unsafe {
            let kind = Kind::Follower {
                why: Wake::Left,
                since: Since::now(),
                patience,
            };
            let link = BioLink::begin(&bio, target, kind);
            if let Kind::Leader { followers, .. } = &mut (*self.leader.as_ptr()).state.kind {
                followers.push(link);
            }
        }
        // Before the lock is released, so that the follower is counted before it can continue.
        let first = table.parked.fetch_add(1, Relaxed) == 0;
        drop(self);
        if first {
            // SAFETY: By the type invariant the ticker exists.
            unsafe { bindings::dm_rust_ticker_tick(table.raw(), false) };
        }
        Mapped::parked()
    }
}

/// The absence of a read in flight of the first page of a range.
pub struct Vacant<'a, T: Follow> {
    table: &'a InFlight<T>,
    leaders: IrqGuard<'a, InFlightList>,
    range: PageRange,
}

impl<T: Follow> Vacant<'_, T> {
    /// Returns the number of pages before the first that a read in flight has, or all if none has
    /// any.
    pub fn pages(&self) -> u32 {
        self.range.count
    }

    /// Lets others follow `bio`, which reads the first `pages` of the range and is about to be
    /// sent.
    pub fn lead(mut self, bio: &Bio<'_, T>, target: &T, pages: u32) {
        let kind = Kind::Leader {
            range: PageRange {
                count: pages,
                ..self.range
            },
            since: Since::now(),
            followers: InFlightList::EMPTY,
        };
        // INVARIANT: `land` is that of the type of the table.
        let lead = Lead {
            content: self.range.content,
            table: NonNull::from(self.table).cast(),
            land: InFlight::<T>::land,
        };
        // SAFETY: We own the bio, and the list is locked.
        unsafe {
            let link = BioLink::begin(bio, target, kind);
            self.leaders.push(link);
            (*per_bio::<T>(bio.as_ptr())).in_flight.lead = Some(lead);
        }
    }
}
