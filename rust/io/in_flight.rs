// SPDX-License-Identifier: GPL-2.0

//! Concurrent reads of the same data: one goes to the disk, and the others wait for it.
//!
//! A read that is sent down can *lead*: it is found by the pages it reads. A read of a part of
//! these pages can *follow* it, and is parked. When the leader has ended and the target has handled
//! that, its followers continue, each in a worker ([`Follow::resume_bio`]). The leader passes them
//! no data, but they may find what it has left in the page cache.
//!
//! No read waits for ever. A follower is a parked bio that holds nothing but its own memory, no
//! task waits, and leaders wait only for the device below. If a leader takes longer than the
//! patience of its follower, or if the device of either is being suspended, the follower continues
//! before the leader has ended.
//!
//! Bios can also be parked for other reasons, and continue in the same way
//! ([`crate::io::block_lock`]).
//!
//! Lock order: the lock of a bucket is taken with interrupts off and is a leaf.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use core::{cell::UnsafeCell, marker::PhantomData, ptr, ptr::NonNull};

use kernel::{
    bindings::{bio, work_struct},
    error::from_err_ptr,
    ffi::c_void,
    prelude::*,
    static_lock_class,
    sync::{
        atomic::{Atomic, Relaxed},
        SpinLockIrq, SpinLockIrqGuard,
    },
    types::Opaque,
};

use crate::{
    bindings,
    block::bio::{Bio, EndedBio, Mapped},
    sync::index::{hash, slot},
    sync::work_queue::WorkQueue,
    target::{per_bio, Ended, PerBioExtension, Sealed, Target},
};

/// Age in milliseconds from which a read in flight can't be followed any more: longer than any
/// healthy disk takes.
pub const LATE_MS: u32 = 1000;
/// Interval in milliseconds at which followers are checked for having waited too long: a fraction
/// of the shortest wait that is worth while beside a disk's request.
const TICK_MS: u32 = 25;

/// Why a parked bio continues.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    /// The read that the bio followed has ended successfully.
    Landed,
    /// The read that the bio followed takes too long.
    Late,
    /// The read that the bio followed has failed, or must not be waited for any more.
    Left,
    /// The bio was deferred, and the reason for that is gone.
    Deferred,
}

/// A target whose bios can be parked.
pub trait Follow: Target<InFlight = InFlightBio> {
    /// Continues with a bio that was parked, and returns what is to be done with it. Process
    /// context.
    fn resume_bio<'a>(&'a self, bio: Bio<'a, Self>, why: Wake) -> Mapped;

    /// Returns the workqueue in which the target's parked bios continue. Its work may wait for
    /// devices below the target, so nothing that is independent of these should have to wait for
    /// the queue.
    fn queue(&self) -> &WorkQueue;
}

/// A range of pages of some content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageRange {
    /// Identifies the content.
    pub content: (u64, u64),
    /// First page of the content.
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

/// The role of a leading or parked bio.
enum Kind {
    /// The bio leads. Its link is in the list of a bucket.
    Leader {
        range: PageRange,
        since: Since,
        followers: InFlightList,
    },
    /// The bio follows. Its link is in the list of its leader, or in none when it continues.
    Follower {
        why: Wake,
        /// The bio waits from `since` on for at most `patience` jiffies.
        since: Since,
        patience: u64,
    },
    /// The bio is deferred. Its link is in a list of another module.
    Deferred,
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
    link: Opaque<BioLink>,
    /// Present if the bio leads. Then `link` is in a bucket of the table.
    lead: Option<Lead>,
    end: Opaque<EndWork>,
    has_ended: bool,
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
    fn wake_followers(&mut self, ok: bool) {
        if let Some(lead) = self.lead.take() {
            let link = NonNull::from(&self.link).cast();
            // SAFETY: The link is in the bucket, and part of a bio that is not completed yet.
            // Called once, as `lead` was taken.
            unsafe { (lead.land)(&lead, link, ok) };
        }
    }
}

impl Drop for InFlightBio {
    fn drop(&mut self) {
        self.wake_followers(false);
    }
}

impl<T: Follow> EndedBio<'_, T> {
    /// If the bio leads, removes it from the table and lets its followers continue. To be called
    /// when what the leader leaves for them can be found. Any context.
    pub fn wake_followers(&mut self) {
        // SAFETY: Initialised in `map`, and only used by the owner of the bio. Other CPUs use only
        // the link, which is opaque.
        let in_flight = unsafe { &mut (*per_bio::<T>(self.as_ptr())).in_flight };
        in_flight.wake_followers(self.ok());
    }
}

/// A target that may defer the completion of its bios.
pub trait EndIoLater: Target<InFlight = InFlightBio> {
    /// Does what [`Target::end_io`] has deferred. The bio completes when this function has
    /// returned. Called in the context of the queue.
    fn end_io_later(&self, bio: &mut EndedBio<'_, Self>);
}

/// The work that completes a bio later.
#[repr(C)]
struct EndWork {
    // First, so that the address of this field is that of the structure.
    work: Opaque<work_struct>,
    bio: NonNull<bio>,
    target: NonNull<c_void>,
    ok: bool,
}

impl<T: EndIoLater> EndedBio<'_, T> {
    /// Has `queue` call [`EndIoLater::end_io_later`] and then complete the bio.
    pub fn end_later(self, target: &T, queue: &WorkQueue) -> Ended {
        // SAFETY: A bio ends once, so the work is in no queue. The work is part of the bio's
        // private data, and so is valid until the bio completes. Dropping a queue waits for its
        // work.
        unsafe {
            let bio = NonNull::new_unchecked(self.as_ptr());
            let end = Opaque::cast_into(&raw const (*per_bio::<T>(bio.as_ptr())).in_flight.end);
            (&raw mut (*end).bio).write(bio);
            (&raw mut (*end).target).write(NonNull::from(target).cast());
            (&raw mut (*end).ok).write(self.ok());
            queue.queue(Opaque::cast_into(&raw const (*end).work), end_later::<T>);
        }
        Ended::incomplete()
    }
}

/// # Safety
///
/// Called by a workqueue, with work that [`EndedBio::end_later`] has queued.
unsafe extern "C" fn end_later<T: EndIoLater>(work: *mut work_struct) {
    let end = work.cast::<EndWork>();
    // SAFETY: `EndedBio::end_later` has initialised the fields. The bio is ours until it completes,
    // and keeps its target alive.
    unsafe {
        let bio = (*end).bio;
        let mut ended = EndedBio::from_raw(bio, (*end).ok);
        (*end).target.cast::<T>().as_ref().end_io_later(&mut ended);
        (*per_bio::<T>(bio.as_ptr())).in_flight.has_ended = true;
        kernel::bindings::bio_endio(bio.as_ptr());
    }
}

/// The link of a bio that leads or is parked.
#[repr(C)]
pub(crate) struct BioLink {
    // First, so that the address of this field is that of the structure.
    work: Opaque<work_struct>,
    bio: NonNull<bio>,
    begin: u64,
    target: NonNull<c_void>,
    /// The next link in the same list.
    next: *mut BioLink,
    /// [`InFlight::go_on`] for the type of the target.
    go_on: unsafe fn(NonNull<BioLink>),
    kind: Kind,
}

/// A list of links. A link is in one list at most.
///
/// # Invariants
///
/// All links are those of bios in flight, and only the owner of the list accesses them.
pub(crate) struct InFlightList(*mut BioLink);

// SAFETY: By the type invariant the bios belong to the list, and bios may be handled by any task.
unsafe impl Send for InFlightList {}

impl InFlightList {
    pub(crate) const EMPTY: Self = Self(ptr::null_mut());

    /// Adds `link` at the head of the list.
    ///
    /// # Safety
    ///
    /// `link` is in no list and is the caller's, and its bio stays in flight until it is removed.
    pub(crate) unsafe fn push(&mut self, link: NonNull<BioLink>) {
        // INVARIANT: By the safety requirements.
        // SAFETY: The link is the caller's.
        unsafe { (*link.as_ptr()).next = self.0 };
        self.0 = link.as_ptr();
    }

    /// Removes and returns the first link.
    pub(crate) fn pop(&mut self) -> Option<NonNull<BioLink>> {
        let first = NonNull::new(self.0)?;
        // SAFETY: By the type invariant.
        self.0 = unsafe { first.as_ref().next };
        Some(first)
    }

    /// Removes all links and returns them.
    pub(crate) fn take(&mut self) -> Self {
        core::mem::replace(self, Self::EMPTY)
    }

    /// Lets all deferred bios of the list continue, each in a worker of its target. Any context.
    pub(crate) fn go_on(mut self) {
        while let Some(link) = self.pop() {
            // SAFETY: The link was removed from the list, so it is ours. It is not used after the
            // call.
            unsafe { (link.as_ref().go_on)(link) };
        }
    }

    /// Removes the links for which `goes` returns true, and returns them.
    fn take_if(&mut self, mut goes: impl FnMut(&mut BioLink) -> bool) -> Self {
        let (mut stay, mut gone) = (Self::EMPTY, Self::EMPTY);
        while let Some(mut link) = self.pop() {
            // SAFETY: By the type invariant the link was ours, and it is in no list now.
            unsafe {
                let list = if goes(link.as_mut()) {
                    &mut gone
                } else {
                    &mut stay
                };
                list.push(link);
            }
        }
        *self = stay;
        gone
    }

    /// Calls `visit` with each link.
    fn for_each(&mut self, mut visit: impl FnMut(&mut BioLink)) {
        let mut next = self.0;
        // SAFETY: By the type invariant.
        while let Some(link) = unsafe { next.as_mut() } {
            visit(link);
            next = link.next;
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
    locks: [SpinLockIrq<InFlightList>; BUCKETS],
}

/// Reads in flight that others may follow.
///
/// # Invariants
///
/// Once [`Self::new`] has returned, `raw` is a ticker that has this value as its data.
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
                |_| SpinLockIrq::new(InFlightList::EMPTY, BUCKET, static_lock_class!())),
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

    fn bucket(&self, content: (u64, u64)) -> &SpinLockIrq<InFlightList> {
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
        leaders.for_each(|link| {
            let Kind::Leader {
                range: its, since, ..
            } = &link.kind
            else {
                return;
            };
            if its.content != range.content || since.over(now, LATE_MS) || found.is_some() {
                return;
            }
            if (its.first..its.end()).contains(&range.first) {
                // RANGE: `range` begins within `its`.
                limit = range.count.min(its.end() - range.first);
                found = Some(NonNull::from(link));
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

    /// Lets a bio continue in a worker of its target. Any context.
    ///
    /// # Safety
    ///
    /// The link is in no list and is the caller's; the target is a `T`.
    unsafe fn go_on(link: NonNull<BioLink>) {
        // SAFETY: By the safety requirements the link is ours. It lives until `resumed` has
        // finished with the bio, and so does the target.
        unsafe {
            let queue = link.as_ref().target.cast::<T>().as_ref().queue();
            let work = Opaque::cast_into(&raw const (*link.as_ptr()).work);
            queue.queue(work, Self::resumed);
        };
    }

    /// Lets followers continue that were removed from their leaders.
    fn wake(&self, mut followers: InFlightList, why: Wake) {
        while let Some(mut link) = followers.pop() {
            self.parked.add(1u32.wrapping_neg(), Relaxed);
            // SAFETY: The link was removed from its list, so it is ours.
            unsafe {
                if let Kind::Follower { why: its, .. } = &mut link.as_mut().kind {
                    *its = why;
                }
                Self::go_on(link);
            }
        }
    }

    /// Removes the followers for which `goes` returns true from all leaders, and lets them
    /// continue. The arguments of `goes` are the target of the leader, and the follower.
    fn part_ways(&self, why: Wake, goes: impl Fn(NonNull<c_void>, &BioLink) -> bool) {
        for bucket in &self.buckets.locks {
            let mut gone = InFlightList::EMPTY;
            let mut leaders = bucket.lock();
            leaders.for_each(|link| {
                let target = link.target;
                let Kind::Leader { followers, .. } = &mut link.kind else {
                    return;
                };
                let mut some = followers.take_if(|follower| goes(target, follower));
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

    /// # Safety
    ///
    /// Called by a workqueue for a link that was passed to [`Self::go_on`].
    unsafe extern "C" fn resumed(work: *mut work_struct) {
        let link = work.cast::<BioLink>();
        // SAFETY: The link is ours, and its target lives as long as the bio is in flight.
        unsafe {
            let why = match (*link).kind {
                Kind::Follower { why, .. } => why,
                Kind::Leader { .. } | Kind::Deferred => Wake::Deferred,
            };
            let bio = Bio::from_raw((*link).bio, (*link).begin, false);
            let mapped = (*link).target.cast::<T>().as_ref().resume_bio(bio, why);
            mapped.carry_out();
        }
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
        let mut gone = leaders.take_if(|other| ptr::eq(other, link.as_ptr()));
        let mut followers = InFlightList::EMPTY;
        if let Some(mut link) = gone.pop() {
            // SAFETY: The link was removed from the list, so it is ours.
            if let Kind::Leader { followers: its, .. } = unsafe { &mut link.as_mut().kind } {
                followers = its.take();
            }
        }
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

/// A moment, in jiffies.
#[derive(Clone, Copy)]
pub struct Since(u64);

impl Since {
    /// Returns the current moment.
    pub fn now() -> Self {
        // SAFETY: Only reads the jiffies.
        Self(unsafe { bindings::dm_rust_jiffies() })
    }

    /// Returns the jiffies from this moment to `now`; 0 if `now` is earlier.
    pub fn elapsed(self, now: Self) -> u64 {
        now.0.saturating_sub(self.0)
    }

    /// Returns whether `now` is more than `ms` milliseconds later.
    pub fn over(self, now: Self, ms: u32) -> bool {
        // CAST: An `unsigned long` fits.
        self.elapsed(now) > kernel::time::msecs_to_jiffies(ms) as u64
    }

    /// Returns the jiffies since boot (`get_jiffies_64()`).
    pub fn jiffies(self) -> u64 {
        self.0
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
    _leaders: SpinLockIrqGuard<'a, InFlightList>,
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
        unsafe { self.leader.as_ref().target.cast::<T>().as_ref() }
    }

    /// Parks `bio` until the read has ended, or for `patience` jiffies. `bio` must not be longer
    /// than [`Self::pages`].
    pub fn follow(mut self, bio: Bio<'_, T>, target: &T, patience: u64) -> Mapped {
        let table = self.table;
        // SAFETY: We own the bio, and the leader is in the bucket, which is locked.
        unsafe {
            let kind = Kind::Follower {
                why: Wake::Left,
                since: Since::now(),
                patience,
            };
            let link = BioLink::begin(&bio, target, kind);
            if let Kind::Leader { followers, .. } = &mut self.leader.as_mut().kind {
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
    leaders: SpinLockIrqGuard<'a, InFlightList>,
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

impl BioLink {
    /// Initialises the link of `bio`, which is to be deferred.
    ///
    /// # Safety
    ///
    /// As for [`Self::begin`].
    pub(crate) unsafe fn deferred<T: Follow>(bio: &Bio<'_, T>, target: &T) -> NonNull<Self> {
        // SAFETY: By the safety requirements.
        unsafe { Self::begin(bio, target, Kind::Deferred) }
    }

    /// Initialises the link of `bio`.
    ///
    /// # Safety
    ///
    /// The caller owns the bio, which stays in flight together with its target until the link is
    /// not used any more.
    unsafe fn begin<T: Follow>(bio: &Bio<'_, T>, target: &T, kind: Kind) -> NonNull<Self> {
        // SAFETY: By the safety requirements.
        unsafe {
            let link = Opaque::cast_into(&raw const (*per_bio::<T>(bio.as_ptr())).in_flight.link);
            link.write(Self {
                work: Opaque::uninit(),
                bio: NonNull::new_unchecked(bio.as_ptr()),
                begin: bio.begin(),
                target: NonNull::from(target).cast(),
                next: ptr::null_mut(),
                go_on: InFlight::<T>::go_on,
                kind,
            });
            NonNull::new_unchecked(link)
        }
    }
}
