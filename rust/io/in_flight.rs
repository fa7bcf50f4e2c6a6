// SPDX-License-Identifier: GPL-2.0

//! Reads of the same data at the same time: one goes to the disk, the others wait for it.
//!
//! A read that is sent down can *lead*: it is found by what it reads. A read of a part of that can
//! *follow* it, and is parked. When the leader has ended, and what the target does about that is done, its
//! followers go on, each in a worker ([`Follow::resume_bio`]); they get nothing from the leader, but may look
//! for what it has left.
//!
//! Nobody waits for ever. A follower is parked, no task is: it holds nothing but its own memory,
//! and leaders wait for nothing but the device below. If a leader takes longer than its follower has patience, or
//! its device or the follower's is being suspended, the follower goes on before it has ended.
//!
//! Bios can also be parked for other reasons, and go on in the same way ([`crate::io::block_lock`]).
//!
//! Lock order: a bucket's lock is taken with interrupts off and is a leaf.
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
    sync::index::hash,
    sync::work_queue::WorkQueue,
    target::{per_bio, Ended, PerBioExtension, Sealed, Target},
};

/// When nobody follows a leader any more, in milliseconds after it was sent: that is longer than any healthy disk
/// takes.
pub const LATE_MS: u32 = 1000;
/// How often it is looked whether somebody's patience is at its end, in milliseconds.
const TICK_MS: u32 = 25;

/// Why a bio that was parked goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    /// The read that it has followed has ended well.
    Landed,
    /// That takes too long.
    Late,
    /// That failed, or is not to be waited for any more.
    Left,
    /// What it was deferred for is over.
    Deferred,
}

/// A target whose bios can be parked.
pub trait Follow: Target<InFlight = InFlightBio> {
    /// Goes on with a bio that was parked. Process context.
    fn resume_bio<'a>(&'a self, bio: Bio<'a, Self>, why: Wake) -> Mapped;

    /// What the target's parked bios go on in. Work there may wait for what lies below the target, so no other
    /// should have to wait for it.
    fn queue(&self) -> &WorkQueue;
}

/// Pages of some data: which data, the first page and their number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageRange {
    /// What stands for the data.
    pub content: (u64, u64),
    /// First page.
    pub first: u32,
    /// Number of pages, not zero.
    pub count: u32,
}

impl PageRange {
    fn end(&self) -> u32 {
        // RANGE: Pages of one block, whose numbers are small.
        self.first + self.count
    }
}

/// What a parked or leading bio is.
enum Kind {
    /// It is in a bucket's list.
    Leader {
        range: PageRange,
        since: Since,
        followers: InFlightList,
    },
    /// It is in its leader's list, or nobody's when it goes on.
    Follower {
        why: Wake,
        /// It waits from then on, for so many jiffies.
        since: Since,
        patience: u64,
    },
    /// It is in the list of something else.
    Deferred,
}

/// Where a leader is found.
///
/// # Invariants
///
/// `table` is an [`InFlight`] of the type that `land` is of, and lives as long as there are bios of its target type.
#[derive(Clone, Copy)]
struct Lead {
    content: (u64, u64),
    table: NonNull<c_void>,
    land: unsafe fn(&Self, NonNull<BioLink>, bool),
}

/// What travels with each bio of a target whose bios can lead, follow, be deferred, or have their end put off.
///
/// A leader that has ended lets its followers go with [`EndedBio::wake_followers`], or when its per-bio data is dropped.
pub struct InFlightBio {
    link: Opaque<BioLink>,
    /// There if the bio leads. Then `link` is in the table's bucket.
    lead: Option<Lead>,
    end: Opaque<EndWork>,
    has_ended: bool,
}

// SAFETY: What is linked belongs to the bio, which may be handled by any task.
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
    /// If the bio leads, it is found no more, and its followers go on. Any context.
    fn wake_followers(&mut self, ok: bool) {
        if let Some(lead) = self.lead.take() {
            let link = NonNull::from(&self.link).cast();
            // SAFETY: The link is in the bucket, and memory of a bio that isn't completed yet; done once.
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
    /// If the bio leads, lets its followers go on, now that what it leaves behind is there. Any context.
    pub fn wake_followers(&mut self) {
        // SAFETY: Initialised in `map`, and only used by the bio's owner. Other CPUs use the link, which is opaque.
        let in_flight = unsafe { &mut (*per_bio::<T>(self.as_ptr())).in_flight };
        in_flight.wake_followers(self.ok());
    }
}

/// A target that may put off the end of its bios.
pub trait EndIoLater: Target<InFlight = InFlightBio> {
    /// Does what [`Target::end_io`] has put off. The bio completes when this has returned. Context of the queue.
    fn end_io_later(&self, bio: &mut EndedBio<'_, Self>);
}

/// The work of a bio whose end is put off.
#[repr(C)]
struct EndWork {
    // First, so that its address is the whole's.
    work: Opaque<work_struct>,
    bio: NonNull<bio>,
    target: NonNull<c_void>,
    ok: bool,
}

impl<T: EndIoLater> EndedBio<'_, T> {
    /// Has `queue` call [`EndIoLater::end_io_later`] and then complete the bio.
    pub fn end_later(self, target: &T, queue: &WorkQueue) -> Ended {
        // SAFETY: A bio has one end, so the work is in no queue. It is the bio's memory, and so is valid until the bio
        // completes. A queue that is dropped waits for its work.
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
/// Called by a queue, with the work that [`EndedBio::end_later`] has put there.
unsafe extern "C" fn end_later<T: EndIoLater>(work: *mut work_struct) {
    let end = work.cast::<EndWork>();
    // SAFETY: `end_later` wrote them. The bio is ours until it completes, and keeps its target alive.
    unsafe {
        let bio = (*end).bio;
        let mut ended = EndedBio::from_raw(bio, (*end).ok);
        (*end).target.cast::<T>().as_ref().end_io_later(&mut ended);
        (*per_bio::<T>(bio.as_ptr())).in_flight.has_ended = true;
        kernel::bindings::bio_endio(bio.as_ptr());
    }
}

/// A bio that leads or is parked, as lists have it.
#[repr(C)]
pub(crate) struct BioLink {
    // First, so that its address is the link's.
    work: Opaque<work_struct>,
    bio: NonNull<bio>,
    begin: u64,
    target: NonNull<c_void>,
    /// The next in the list that it is in.
    next: *mut BioLink,
    /// [`InFlight::go_on`], of the target's type.
    go_on: unsafe fn(NonNull<BioLink>),
    kind: Kind,
}

/// A list of bios, each of which is in one list at most.
///
/// # Invariants
///
/// All that are in it are those of bios in flight, and nobody touches them but whoever has the list.
pub(crate) struct InFlightList(*mut BioLink);

// SAFETY: By the type invariant the bios go with the list, and bios may be handled by any task.
unsafe impl Send for InFlightList {}

impl InFlightList {
    pub(crate) const EMPTY: Self = Self(ptr::null_mut());

    /// Adds a link, as the first.
    ///
    /// # Safety
    ///
    /// It is in no list, is the caller's, and its bio stays in flight until it is taken out.
    pub(crate) unsafe fn push(&mut self, link: NonNull<BioLink>) {
        // INVARIANT: By the safety requirements.
        // SAFETY: It is the caller's.
        unsafe { (*link.as_ptr()).next = self.0 };
        self.0 = link.as_ptr();
    }

    /// Takes the first out.
    pub(crate) fn pop(&mut self) -> Option<NonNull<BioLink>> {
        let first = NonNull::new(self.0)?;
        // SAFETY: By the type invariant.
        self.0 = unsafe { first.as_ref().next };
        Some(first)
    }

    /// Takes all out.
    pub(crate) fn take(&mut self) -> Self {
        core::mem::replace(self, Self::EMPTY)
    }

    /// Has all that were deferred go on, each in a worker of its target's. Any context.
    pub(crate) fn go_on(mut self) {
        while let Some(link) = self.pop() {
            // SAFETY: Taken from the list, so it is ours; once it goes on it may be gone.
            unsafe { (link.as_ref().go_on)(link) };
        }
    }

    /// Takes those out of which `goes` is true.
    fn take_if(&mut self, mut goes: impl FnMut(&mut BioLink) -> bool) -> Self {
        let (mut stay, mut gone) = (Self::EMPTY, Self::EMPTY);
        while let Some(mut link) = self.pop() {
            // SAFETY: By the type invariant it was ours, and is in no list now.
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

    /// Calls `visit` for each.
    fn for_each(&mut self, mut visit: impl FnMut(&mut BioLink)) {
        let mut next = self.0;
        // SAFETY: By the type invariant.
        while let Some(link) = unsafe { next.as_mut() } {
            visit(link);
            next = link.next;
        }
    }
}

const BUCKETS: usize = 64;

static BUCKET: &CStr = c"dm_inflight";

#[pin_data]
struct Buckets {
    /// The leaders of each.
    #[pin]
    locks: [SpinLockIrq<InFlightList>; BUCKETS],
}

/// Reads in flight that others may follow.
///
/// # Invariants
///
/// `raw` ticks with this as its data.
pub struct InFlight<T: Follow> {
    raw: UnsafeCell<*mut bindings::dm_rust_ticker>,
    buckets: Pin<KBox<Buckets>>,
    /// Followers that wait.
    parked: Atomic<u32>,
    target: PhantomData<fn() -> T>,
}

// SAFETY: What is shared is guarded by the buckets' locks; `raw` is only written in `new`.
unsafe impl<T: Follow> Send for InFlight<T> {}
// SAFETY: As above.
unsafe impl<T: Follow> Sync for InFlight<T> {}

impl<T: Follow> InFlight<T> {
    /// None in flight; looks in a workqueue of this name whether leaders are late. Fails with `ENOMEM`.
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
        // SAFETY: The box doesn't move its content, which ends the ticking when it is dropped.
        let raw = from_err_ptr(unsafe {
            // Reads on behalf of reclaim may be among those that follow.
            bindings::dm_rust_ticker_new(name.as_char_ptr(), true, TICK_MS, Some(Self::tick), data)
        })?;
        // SAFETY: Nobody else has it yet.
        unsafe { *this.raw.get() = raw };
        Ok(this)
    }

    fn raw(&self) -> *mut bindings::dm_rust_ticker {
        // SAFETY: Only written in `new`.
        unsafe { *self.raw.get() }
    }

    fn bucket(&self, content: (u64, u64)) -> &SpinLockIrq<InFlightList> {
        let hash = hash(content.0 ^ hash(content.1));
        // CAST: Less than the number of buckets.
        &self.buckets.locks[(hash >> (u64::BITS - BUCKETS.trailing_zeros())) as usize]
    }

    /// Looks for reads in flight that have a part of `range`, and keeps others from coming or going for as
    /// long as what it returns lives.
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

    /// Has a bio go on, in a worker of its target's.
    ///
    /// # Safety
    ///
    /// Its link is in no list, and the caller's; its target is a `T`.
    unsafe fn go_on(link: NonNull<BioLink>) {
        // SAFETY: By the safety requirements the link is nobody else's; it lives until `resumed` is
        // done with its bio, and so does its target.
        unsafe {
            let queue = link.as_ref().target.cast::<T>().as_ref().queue();
            let work = Opaque::cast_into(&raw const (*link.as_ptr()).work);
            queue.queue(work, Self::resumed);
        };
    }

    /// Has followers that were taken from their leaders go on.
    fn wake(&self, mut followers: InFlightList, why: Wake) {
        while let Some(mut link) = followers.pop() {
            self.parked.add(1u32.wrapping_neg(), Relaxed);
            // SAFETY: Taken from its list, so it is ours.
            unsafe {
                if let Kind::Follower { why: its, .. } = &mut link.as_mut().kind {
                    *its = why;
                }
                Self::go_on(link);
            }
        }
    }

    /// Takes the followers of which `goes` is true from all leaders, and has them go their own way; it is told
    /// the leader's target, and the follower.
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
                    // SAFETY: Taken from its list, so it is ours.
                    unsafe { gone.push(follower) };
                }
            });
            drop(leaders);
            self.wake(gone, why);
        }
    }

    /// Nobody waits for reads of `target` any more, and none of its own wait. Process context.
    pub fn release(&self, target: &T) {
        if self.parked.load(Relaxed) != 0 {
            let target = NonNull::from(target).cast();
            self.part_ways(Wake::Left, |leader, follower| {
                leader == target || follower.target == target
            });
        }
    }

    /// # Safety
    ///
    /// Called by the ticker with the data of [`Self::new`]; returns whether it is to be called again.
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
    /// Called by the workqueue for a link that was handed to [`Self::go_on`].
    unsafe extern "C" fn resumed(work: *mut work_struct) {
        let link = work.cast::<BioLink>();
        // SAFETY: The link is ours, and its target lives as long as its bio is in flight.
        unsafe {
            let why = match (*link).kind {
                Kind::Follower { why, .. } => why,
                Kind::Leader { .. } | Kind::Deferred => Wake::Deferred,
            };
            let bio = Bio::from_raw((*link).bio, (*link).begin);
            let mapped = (*link).target.cast::<T>().as_ref().resume_bio(bio, why);
            mapped.carry_out();
        }
    }

    /// A leader has ended: it is found no more, and its followers go on. Any context.
    ///
    /// # Safety
    ///
    /// The table is of this type. `link` is that of the bio that [`Vacant::lead`] made `lead` for, which isn't
    /// completed yet; called once.
    unsafe fn land(lead: &Lead, link: NonNull<BioLink>, ok: bool) {
        // SAFETY: By the safety requirements; the table lives as long as targets.
        let this = unsafe { lead.table.cast::<Self>().as_ref() };
        let mut leaders = this.bucket(lead.content).lock();
        let mut gone = leaders.take_if(|other| ptr::eq(other, link.as_ptr()));
        let mut followers = InFlightList::EMPTY;
        if let Some(mut link) = gone.pop() {
            // SAFETY: Taken from the list, so it is ours.
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
            // SAFETY: No bio of a `T` is in flight any more; it waits for workers that are about
            // to end.
            unsafe { bindings::dm_rust_ticker_free(raw) };
        }
    }
}

/// A moment from which on something waits.
#[derive(Clone, Copy)]
pub struct Since(u64);

impl Since {
    /// This moment.
    pub fn now() -> Self {
        // SAFETY: Only reads.
        Self(unsafe { bindings::dm_rust_jiffies() })
    }

    /// It was so many jiffies ago when it is `now`; none if that was looked up a little before.
    pub fn elapsed(self, now: Self) -> u64 {
        now.0.saturating_sub(self.0)
    }

    /// `now` is more than `ms` milliseconds later.
    pub fn over(self, now: Self, ms: u32) -> bool {
        // CAST: Fits.
        self.elapsed(now) > kernel::time::msecs_to_jiffies(ms) as u64
    }

    /// Jiffies since the boot.
    pub fn jiffies(self) -> u64 {
        self.0
    }
}

/// What [`InFlight::entry`] has found, with the bucket locked.
pub enum Entry<'a, T: Follow> {
    /// A read of the first pages is in flight.
    Occupied(Occupied<'a, T>),
    /// None is.
    Vacant(Vacant<'a, T>),
}

/// A read of the first pages is in flight.
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
    /// How many of the pages it reads, from the first on.
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// The target whose read that is.
    pub fn target(&self) -> &T {
        // SAFETY: By the type invariant the leader is in flight, and found no more before that ends; so its target, which
        // is a `T` as it is in the table, is there.
        unsafe { self.leader.as_ref().target.cast::<T>().as_ref() }
    }

    /// Parks `bio`, which asks for no more than [`Self::pages`], until that read has ended, or for `patience` jiffies.
    pub fn follow(mut self, bio: Bio<'_, T>, target: &T, patience: u64) -> Mapped {
        let table = self.table;
        // SAFETY: The bio is ours, and the leader is in the bucket, which is locked.
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
        // Before the lock is let go, so that it is counted before it goes on.
        let first = table.parked.fetch_add(1, Relaxed) == 0;
        drop(self);
        if first {
            // SAFETY: Alive by the type invariant.
            unsafe { bindings::dm_rust_ticker_tick(table.raw(), false) };
        }
        Mapped::parked()
    }
}

/// No read of the first pages is in flight.
pub struct Vacant<'a, T: Follow> {
    table: &'a InFlight<T>,
    leaders: SpinLockIrqGuard<'a, InFlightList>,
    range: PageRange,
}

impl<T: Follow> Vacant<'_, T> {
    /// Pages before the first that a read in flight has; all if none has any.
    pub fn pages(&self) -> u32 {
        self.range.count
    }

    /// Lets others follow `bio`, which asks for the first `pages` of the range and is about to be sent down.
    pub fn lead(mut self, bio: &Bio<'_, T>, target: &T, pages: u32) {
        let kind = Kind::Leader {
            range: PageRange {
                count: pages,
                ..self.range
            },
            since: Since::now(),
            followers: InFlightList::EMPTY,
        };
        // INVARIANT: The function is that of the table's type.
        let lead = Lead {
            content: self.range.content,
            table: NonNull::from(self.table).cast(),
            land: InFlight::<T>::land,
        };
        // SAFETY: The bio is ours, and the list locked.
        unsafe {
            let link = BioLink::begin(bio, target, kind);
            self.leaders.push(link);
            (*per_bio::<T>(bio.as_ptr())).in_flight.lead = Some(lead);
        }
    }
}

impl BioLink {
    /// Fills in the link of `bio`, which is deferred.
    ///
    /// # Safety
    ///
    /// As for [`Self::begin`].
    pub(crate) unsafe fn deferred<T: Follow>(bio: &Bio<'_, T>, target: &T) -> NonNull<Self> {
        // SAFETY: By the safety requirements.
        unsafe { Self::begin(bio, target, Kind::Deferred) }
    }

    /// Fills in the link of `bio`.
    ///
    /// # Safety
    ///
    /// The bio is the caller's, and stays in flight, with its target, until the link is done with.
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
