// SPDX-License-Identifier: GPL-2.0

//! Reads of the same data at the same time: one goes to the disk, the others wait for it.
//!
//! A read that is sent down can *lead*: it is found by what it reads. A read of a part of that can
//! *follow* it, and is parked. When the leader ends, and before its submitter learns of it, the
//! target goes on with the followers, each in a worker, where the leader's data is at hand to be
//! copied ([`Target::landed`]). Until all have done so the leader doesn't complete, so its data
//! stays what was read: nobody else has it yet. That isn't so where user space can reach the
//! memory, so only what readahead submits leads. Who comes while it lends is given the data at once,
//! but no more than [`LATE`] are, so that they can't hold it up for ever.
//!
//! Nobody waits for ever. A follower is parked, no task is: it holds nothing but its own memory,
//! and leaders wait for nothing but the device below and copies, which neither sleep nor allocate.
//! If a leader fails, or takes longer than [`PATIENCE_MS`], or its device or the follower's is
//! being suspended, then the followers go their own way ([`Target::landed`] with nothing lent).
//!
//! Lock order: a bucket's lock and the one of those who stepped aside are taken with interrupts off
//! and are leaves.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use core::{cell::UnsafeCell, marker::PhantomData, mem::MaybeUninit, ptr, ptr::NonNull};

use kernel::{
    bindings::{bio, bio_vec, bvec_iter, work_struct},
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
    bio::{advance, per_bio, piece, Bio, EndedBio, Mapped, Writer},
    folio::{PageData, PAGE_SHIFT},
    index::hash,
    target::Target,
};

/// How long followers wait for a leader, in milliseconds: longer than any healthy disk takes.
pub const PATIENCE_MS: u32 = 1000;
/// How often it is looked whether one is late, in milliseconds.
const TICK_MS: u32 = 250;
/// Followers that may come when the leader has ended.
const LATE: u32 = 32;

/// Pages of some data: which data, the first page and their number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// What stands for the data.
    pub content: (u64, u64),
    /// First page.
    pub first: u32,
    /// Number of pages, not zero.
    pub count: u32,
}

impl Part {
    /// Of a bio that neither leads nor follows.
    pub(crate) const NONE: Self = Self {
        content: (0, 0),
        first: 0,
        count: 0,
    };
}

/// What a bio is among those in flight.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Nobody knows of it.
    Alone,
    /// It is in a bucket's list.
    Leader,
    /// It was, and has ended.
    Landed,
}

/// What travels with a bio that leads or follows.
#[repr(C)]
pub(crate) struct Leg {
    // First, so that its address is the leg's.
    work: Opaque<work_struct>,
    bio: NonNull<bio>,
    begin: u64,
    target: NonNull<c_void>,
    part: Part,
    /// Of a leader: the next in its bucket. Of a follower: the next of its leader's. Of others: the
    /// next of those that wait for the same.
    pub(crate) next: *mut Leg,
    /// Of a follower: its leader, or null if it goes its own way.
    leader: *mut Leg,
    /// Of a leader: its followers, and where it is known.
    followers: *mut Leg,
    table: NonNull<c_void>,
    /// Of a leader: where its data is, and when it was sent.
    vecs: *mut bio_vec,
    iter: bvec_iter,
    since: Since,
    /// Of a leader: it has ended well, and lends its data to so many followers that aren't done.
    lending: Option<u32>,
    /// Of a leader that lends: so many more may come.
    late: u32,
}

/// A leader's data, as a follower sees it.
///
/// # Invariants
///
/// The leader has ended well and isn't completed during `'a`; it has all of the follower's part.
pub struct Lent<'a, T: Target> {
    leader: &'a Leg,
    skip: u32,
    target: PhantomData<&'a T>,
}

impl<T: Target> Lent<'_, T> {
    /// The leader's own data.
    pub fn data(&self) -> &T::PerBio {
        // SAFETY: The leader went through `map`, and isn't completed.
        unsafe { &(*per_bio::<T>(self.leader.bio.as_ptr())).data }
    }

    /// Copies what the follower wants, as much as there is room for.
    pub fn copy_to(&self, writer: &mut Writer<'_>) {
        let (vecs, mut iter) = (self.leader.vecs.cast_const(), self.leader.iter);
        let mut skip = self.skip << PAGE_SHIFT;
        while iter.bi_size != 0 {
            // SAFETY: By the type invariant, the leader's data.
            let (vec, len) = unsafe { piece(vecs, &iter) };
            let skipped = skip.min(len);
            if skipped < len {
                // SAFETY: Within the piece, whose pages the leader holds.
                let data = unsafe {
                    PageData::new(
                        bindings::dm_rust_page_address(vec.bv_page)
                            .cast::<u8>()
                            .add((vec.bv_offset + iter.bi_offset + skipped) as usize),
                        (len - skipped) as usize,
                    )
                };
                writer.write(&data);
            }
            skip -= skipped;
            advance(&vec, &mut iter, len);
        }
    }
}

const BUCKETS: usize = 64;

static BUCKET: &CStr = c"dm_inflight";
static ASIDE: &CStr = c"dm_inflight_aside";

#[pin_data]
struct Buckets {
    /// The first leader of each.
    #[pin]
    locks: [SpinLockIrq<Head>; BUCKETS],
    /// Bios that go on by themselves at the next tick.
    #[pin]
    aside: SpinLockIrq<Head>,
}

/// The first of some legs.
pub(crate) struct Head(pub(crate) *mut Leg);

// SAFETY: The legs are touched under the bucket's lock, by whoever holds it.
unsafe impl Send for Head {}

impl Head {
    /// # Safety
    ///
    /// `leg` is in the list, whose lock is held.
    unsafe fn unlink(&mut self, leg: NonNull<Leg>) {
        let mut at: *mut *mut Leg = &mut self.0;
        // SAFETY: All in the list are valid, and `leg` is one of them.
        unsafe {
            while !ptr::eq(*at, leg.as_ptr()) {
                at = &raw mut (**at).next;
            }
            *at = leg.as_ref().next;
        }
    }
}

/// Reads in flight that others may follow.
///
/// # Invariants
///
/// `raw` is what followers go on in, and has this as its data. Legs in the buckets are those of bios
/// in flight, whose targets live.
pub struct InFlight<T: Target> {
    raw: UnsafeCell<*mut bindings::dm_rust_ticker>,
    buckets: Pin<KBox<Buckets>>,
    parked: Atomic<u32>,
    target: PhantomData<fn() -> T>,
}

// SAFETY: What is shared is guarded by the buckets' locks; `raw` is only written in `new`.
unsafe impl<T: Target> Send for InFlight<T> {}
// SAFETY: As above.
unsafe impl<T: Target> Sync for InFlight<T> {}

impl<T: Target> InFlight<T> {
    /// None in flight. Fails with `ENOMEM`.
    pub fn new() -> Result<KBox<Self>> {
        let buckets = try_pin_init!(Buckets {
            locks <- pin_init::pin_init_array_from_fn(
                |_| SpinLockIrq::new(Head(ptr::null_mut()), BUCKET, static_lock_class!())),
            aside <- SpinLockIrq::new(Head(ptr::null_mut()), ASIDE, static_lock_class!()),
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
            bindings::dm_rust_ticker_new(
                c"drr".as_char_ptr(),
                true,
                TICK_MS,
                Some(Self::tick),
                data,
            )
        })?;
        // SAFETY: Nobody else has it yet.
        unsafe { *this.raw.get() = raw };
        Ok(this)
    }

    fn raw(&self) -> *mut bindings::dm_rust_ticker {
        // SAFETY: Only written in `new`.
        unsafe { *self.raw.get() }
    }

    fn bucket(&self, part: &Part) -> &SpinLockIrq<Head> {
        let hash = hash(part.content.0 ^ hash(part.content.1));
        // CAST: Less than the number of buckets.
        &self.buckets.locks[(hash >> (u64::BITS - BUCKETS.trailing_zeros())) as usize]
    }

    /// Looks for reads in flight that have a part of `part`, and keeps others from coming or going.
    pub fn look(&self, part: Part) -> Gate<'_, T> {
        let head = self.bucket(&part).lock();
        let now = Since::now();
        let (mut leader, mut limit) = (ptr::null_mut(), part.count);
        let mut next = head.0;
        while let Some(leg) = NonNull::new(next) {
            // SAFETY: The bucket is locked.
            let this = unsafe { leg.as_ref() };
            next = this.next;
            let open = match this.lending {
                Some(_) => this.late != 0,
                None => !this.since.over(now, PATIENCE_MS),
            };
            if this.part.content != part.content || !open {
                continue;
            }
            let end = this.part.first + this.part.count;
            if (this.part.first..end).contains(&part.first) {
                leader = leg.as_ptr();
                limit = part.count.min(end - part.first);
                break;
            }
            if this.part.first > part.first {
                limit = limit.min(this.part.first - part.first);
            }
        }
        Gate {
            table: self,
            head,
            part,
            leader,
            limit,
        }
    }

    /// Has a follower go on, in a worker.
    ///
    /// # Safety
    ///
    /// It is in no list, and the caller's.
    pub(crate) unsafe fn go_on(&self, leg: NonNull<Leg>) {
        // SAFETY: By the safety requirements the leg is nobody else's; it lives until `landed` is
        // done with its bio.
        unsafe {
            bindings::dm_rust_ticker_queue(
                self.raw(),
                Opaque::cast_into(&raw const (*leg.as_ptr()).work),
                Some(Self::landed),
            )
        };
    }

    /// Takes the followers of which `goes` is true from all leaders, and has them go their own way.
    fn part_ways(&self, goes: impl Fn(&Leg, &Leg) -> bool) {
        for bucket in &self.buckets.locks {
            let mut gone = ptr::null_mut();
            let head = bucket.lock();
            let mut leader = head.0;
            // SAFETY: The bucket is locked.
            while let Some(leads) = unsafe { leader.as_mut() } {
                let mut stay = ptr::null_mut();
                let mut next = leads.followers;
                // SAFETY: As above.
                while let Some(follows) = unsafe { next.as_mut() } {
                    next = follows.next;
                    let list = if goes(leads, follows) {
                        &mut gone
                    } else {
                        &mut stay
                    };
                    follows.next = *list;
                    *list = follows;
                }
                leads.followers = stay;
                leader = leads.next;
            }
            drop(head);
            while let Some(leg) = NonNull::new(gone) {
                self.parked.add(1u32.wrapping_neg(), Relaxed);
                // SAFETY: Taken from its list above, so it is ours.
                unsafe {
                    gone = (*leg.as_ptr()).next;
                    (*leg.as_ptr()).leader = ptr::null_mut();
                    self.go_on(leg);
                }
            }
        }
    }

    /// Nobody waits for reads of `target` any more, and none of its own wait. Process context.
    pub fn release(&self, target: &T) {
        if self.parked.load(Relaxed) != 0 {
            let target = NonNull::from(target).cast();
            self.part_ways(|leads, follows| leads.target == target || follows.target == target);
        }
    }

    /// Has `bio`, which goes on in a worker right now, do so again a few milliseconds later.
    pub fn later(&self, bio: Bio<'_, T>, target: &T) -> Mapped {
        // SAFETY: The bio is ours, and nobody knows of its leg.
        let leg = unsafe { Leg::begin(&bio, target, Part::NONE, self) };
        let mut head = self.buckets.aside.lock();
        leg.next = head.0;
        head.0 = leg;
        drop(head);
        // The bio may be done with by now, but the worker that we are in isn't.
        // SAFETY: Alive by the type invariant.
        unsafe { bindings::dm_rust_ticker_tick(self.raw(), true) };
        Mapped::submitted()
    }

    /// # Safety
    ///
    /// Called by the ticker with the data of [`Self::new`]; returns whether it is to be called again.
    unsafe extern "C" fn tick(data: *mut c_void) -> bool {
        // SAFETY: By the safety requirements.
        let this = unsafe { &*data.cast::<Self>() };
        let now = Since::now();
        this.part_ways(|leads, _| {
            let late = leads.since.over(now, PATIENCE_MS);
            if late {
                // SAFETY: The leader is in flight, so its target is there.
                unsafe { leads.target.cast::<T>().as_ref() }.led_in_vain();
            }
            late
        });
        let mut aside = core::mem::replace(&mut this.buckets.aside.lock().0, ptr::null_mut());
        while let Some(leg) = NonNull::new(aside) {
            // SAFETY: Taken from the list, so it is ours.
            unsafe {
                aside = leg.as_ref().next;
                this.go_on(leg);
            }
        }
        this.parked.load(Relaxed) != 0
    }

    /// # Safety
    ///
    /// Called by the workqueue for a leg that was handed to [`Self::go_on`].
    unsafe extern "C" fn landed(work: *mut work_struct) {
        let leg = work.cast::<Leg>();
        // SAFETY: The leg is ours, and its target lives as long as its bio is in flight.
        let (bio, begin, target, leader, first) = unsafe {
            let leg = &*leg;
            let target = leg.target.cast::<T>().as_ref();
            (leg.bio, leg.begin, target, leg.leader, leg.part.first)
        };
        // INVARIANT: The leader counts us among those that aren't done.
        // SAFETY: As it isn't completed, its leg is there.
        let lent = unsafe { leader.as_ref() }.map(|leader| Lent {
            leader,
            skip: first - leader.part.first,
            target: PhantomData,
        });
        // SAFETY: The bio was parked by `follow`, and is ours.
        let mapped = target.landed(unsafe { Bio::from_raw(bio, begin) }, lent);
        // If it was completed, its target may be gone. Sending it down may wait for memory, and
        // nobody is to wait for that but its submitter: the leader goes first.
        if let Some(leader) = NonNull::new(leader) {
            // SAFETY: As above: it waits for us.
            unsafe { Self::done(leader) };
        }
        if mapped.is_remapped() {
            // SAFETY: Remapped, and ours still.
            unsafe { kernel::bindings::submit_bio_noacct(bio.as_ptr()) };
        }
    }

    /// A follower is done with its leader's data; the last completes the leader.
    ///
    /// # Safety
    ///
    /// The leader lends, and counts the caller.
    unsafe fn done(leader: NonNull<Leg>) {
        // SAFETY: By the safety requirements; the table lives as long as targets, and the leader's
        // does until it is completed.
        let (this, part, bio) = unsafe {
            let leg = leader.as_ref();
            (leg.table.cast::<Self>().as_ref(), leg.part, leg.bio)
        };
        let mut head = this.bucket(&part).lock();
        // SAFETY: The bucket is locked.
        let left = unsafe {
            let lending = &mut (*leader.as_ptr()).lending;
            *lending = lending.map(|count| count - 1);
            *lending
        };
        if left == Some(0) {
            // SAFETY: The bucket is locked, and the leader in its list.
            unsafe { head.unlink(leader) };
            drop(head);
            // SAFETY: Nobody else can find it, and it was held back for this.
            unsafe { kernel::bindings::bio_endio(bio.as_ptr()) };
        }
    }
}

impl<T: Target> Drop for InFlight<T> {
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

    /// `now` is more than `ms` milliseconds later.
    pub fn over(self, now: Self, ms: u32) -> bool {
        // CAST: Fits.
        now.0.wrapping_sub(self.0) > kernel::time::msecs_to_jiffies(ms) as u64
    }
}

/// What [`InFlight::look`] has found, with the bucket locked.
pub struct Gate<'a, T: Target> {
    table: &'a InFlight<T>,
    head: SpinLockIrqGuard<'a, Head>,
    part: Part,
    leader: *mut Leg,
    limit: u32,
}

impl<T: Target> Gate<'_, T> {
    /// Somebody reads the first pages right now.
    pub fn found(&self) -> bool {
        !self.leader.is_null()
    }

    /// Pages of the part that somebody reads right now; or if nobody does, pages before those that
    /// somebody reads.
    pub fn pages(&self) -> u32 {
        self.limit
    }

    /// Parks `bio`, which asks for [`Self::pages`] from the first on, until the one that was found
    /// has read them.
    pub fn follow(mut self, bio: Bio<'_, T>, target: &T) -> Mapped {
        assert!(self.found());
        self.part.count = self.limit;
        let table = self.table;
        // SAFETY: The bio is ours, the leader is in the bucket, which is locked.
        unsafe {
            let leader = &mut *self.leader;
            let leg = Leg::begin(&bio, target, self.part, table);
            leg.leader = leader;
            if let Some(count) = &mut leader.lending {
                *count += 1;
                leader.late -= 1;
                let leg = NonNull::from(leg);
                drop(self.head);
                table.go_on(leg);
                return Mapped::submitted();
            }
            leg.next = leader.followers;
            leader.followers = leg;
        }
        // Before the lock is let go, so that it is counted before it goes on.
        let first = table.parked.fetch_add(1, Relaxed) == 0;
        drop(self.head);
        if first {
            // SAFETY: Alive by the type invariant.
            unsafe { bindings::dm_rust_ticker_tick(table.raw(), false) };
        }
        Mapped::submitted()
    }

    /// Has `bio` go on by itself, in a worker: a moment later, and where it may sleep.
    pub fn step_aside(self, bio: Bio<'_, T>, target: &T) -> Mapped {
        let table = self.table;
        drop(self.head);
        // SAFETY: The bio is ours, and nobody knows of its leg.
        unsafe {
            let leg = NonNull::from(Leg::begin(&bio, target, self.part, table));
            table.go_on(leg);
        }
        Mapped::submitted()
    }

    /// Lets others follow `bio`, which asks for `pages` from the first on and is about to be sent
    /// down; if it is readahead's.
    pub fn lead(mut self, bio: &Bio<'_, T>, target: &T, pages: u32) {
        if !bio.readahead() {
            return;
        }
        self.part.count = pages;
        // SAFETY: The bio is ours, the bucket is locked.
        unsafe {
            let leg = Leg::begin(bio, target, self.part, self.table);
            leg.next = self.head.0;
            self.head.0 = leg;
            (*per_bio::<T>(bio.as_ptr())).role = Role::Leader;
        }
    }
}

impl Leg {
    /// Fills in the leg of `bio`.
    ///
    /// # Safety
    ///
    /// The bio is the caller's, and stays in flight, with its target, until the leg is done with.
    pub(crate) unsafe fn begin<'a, T: Target>(
        bio: &Bio<'_, T>,
        target: &T,
        part: Part,
        table: &InFlight<T>,
    ) -> &'a mut Self {
        // SAFETY: By the safety requirements.
        let leg = unsafe { &mut (*per_bio::<T>(bio.as_ptr())).leg };
        leg.write(Self {
            work: Opaque::uninit(),
            // SAFETY: A bio's pointer is not null.
            bio: unsafe { NonNull::new_unchecked(bio.as_ptr()) },
            begin: bio.begin(),
            target: NonNull::from(target).cast(),
            part,
            next: ptr::null_mut(),
            leader: ptr::null_mut(),
            followers: ptr::null_mut(),
            table: NonNull::from(table).cast(),
            vecs: bio.vecs(),
            iter: bio.iter(),
            since: Since::now(),
            lending: None,
            late: LATE,
        })
    }
}

/// A leader has ended, and its followers go on. Returns whether it is not to be completed yet. Any
/// context.
///
/// # Safety
///
/// `ended` is a bio of `target` that [`Gate::lead`] has made a leader; it ends for the first time.
pub(crate) unsafe fn land<T: Target>(target: &T, ended: &EndedBio<'_, T>, ok: bool) -> bool {
    let slot = per_bio::<T>(ended.as_ptr());
    // SAFETY: A leader's leg has been filled in, its part doesn't change, and the table lives as
    // long as targets.
    let (leg, part, table) = unsafe {
        (*slot).role = Role::Landed;
        let leg = NonNull::new_unchecked((*slot).leg.as_mut_ptr());
        let this = leg.as_ref();
        (leg, this.part, this.table.cast::<InFlight<T>>().as_ref())
    };
    let lends = ok && target.lends(ended);
    let mut head = table.bucket(&part).lock();
    // SAFETY: The bucket is locked, and the leg in its list.
    let (mut followers, count) = unsafe {
        let followers = core::mem::replace(&mut (*leg.as_ptr()).followers, ptr::null_mut());
        let mut count = 0;
        let mut next = followers;
        while let Some(follower) = next.as_mut() {
            count += 1;
            next = follower.next;
            if !lends {
                follower.leader = ptr::null_mut();
            }
        }
        if lends && count != 0 {
            (*leg.as_ptr()).lending = Some(count);
        } else {
            head.unlink(leg);
        }
        (followers, count)
    };
    drop(head);
    table.parked.add(count.wrapping_neg(), Relaxed);
    while let Some(follower) = NonNull::new(followers) {
        // SAFETY: Nobody but us has the followers; they may be gone once they go on.
        unsafe {
            followers = (*follower.as_ptr()).next;
            table.go_on(follower);
        }
    }
    lends && count != 0
}

/// What travels with each bio of a `T`.
#[repr(C)]
pub(crate) struct PerBio<T: Target> {
    pub(crate) data: T::PerBio,
    pub(crate) role: Role,
    leg: MaybeUninit<Leg>,
}
