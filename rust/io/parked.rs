// SPDX-License-Identifier: GPL-2.0

//! Parked bios, and how they continue.
//!
//! A parked bio is in a list until the event that it waits for. Meanwhile it holds nothing but its
//! own memory, and no task waits for it. It then continues in a worker of its target
//! ([`Follow::resume_bio`]).
//!
//! The worker holds the bio until `resume_bio` has returned. So the bio may be sent or parked again
//! meanwhile, but does not complete, and the target isn't destroyed.
//!
//! A bio has one link, which is in one list at most: [`crate::io::in_flight`] has lists of leaders
//! and of their followers, [`crate::io::block_lock`] has lists of deferred bios.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use core::{ptr, ptr::NonNull};

use kernel::{
    bindings::{bio, work_struct},
    ffi::c_void,
    types::Opaque,
};

use crate::{
    bindings,
    block::bio::{Bio, Mapped},
    io::in_flight::{InFlightBio, PageRange},
    jiffies::Since,
    sync::work_queue::WorkQueue,
    target::{per_bio, Target},
};

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
///
/// # Examples
///
/// A target that looks again for the data of a parked read, and maps a parked write anew.
///
/// ```ignore
/// impl Follow for MyTarget {
///     fn resume_bio<'a>(&'a self, bio: Bio<'a, Self>, why: Wake) -> Mapped {
///         match bio.op() {
///             Op::Read => self.resume_read(bio, why),
///             _ => self.write(bio),
///         }
///     }
///
///     fn queue(&self) -> &WorkQueue {
///         &self.parked
///     }
/// }
/// ```
pub trait Follow: Target<InFlight = InFlightBio> {
    /// Continues with a bio that was parked, and returns what is to be done with it. Process
    /// context.
    fn resume_bio<'a>(&'a self, bio: Bio<'a, Self>, why: Wake) -> Mapped;

    /// Returns the workqueue in which the target's parked bios continue. Its work may wait for
    /// devices below the target, so nothing that is independent of these should have to wait for
    /// the queue.
    fn queue(&self) -> &WorkQueue;
}

/// The role of a leading or parked bio.
pub(crate) enum Kind {
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

/// The link of a bio that leads or is parked.
#[repr(C)]
pub(crate) struct BioLink {
    // First, so that the address of this field is that of the structure.
    work: Opaque<work_struct>,
    /// The next link in the same list.
    next: *mut BioLink,
    pub(super) state: BioState,
}

/// What is known of a bio that leads or is parked.
pub(crate) struct BioState {
    bio: NonNull<bio>,
    begin: u64,
    /// The target that the bio passes through, which lives as long as the bio is in flight.
    pub(super) target: NonNull<c_void>,
    /// [`go_on`] for the type of the target.
    go_on: unsafe fn(NonNull<BioLink>),
    pub(super) kind: Kind,
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
    pub(super) unsafe fn begin<T: Follow>(
        bio: &Bio<'_, T>,
        target: &T,
        kind: Kind,
    ) -> NonNull<Self> {
        // SAFETY: By the safety requirements. The link is opaque, so that other tasks may write to
        // it while there are references to the per-bio data.
        unsafe {
            let link = Opaque::cast_into(&raw const (*per_bio::<T>(bio.as_ptr())).in_flight.link);
            link.write(Self {
                work: Opaque::uninit(),
                next: ptr::null_mut(),
                state: BioState {
                    bio: NonNull::new_unchecked(bio.as_ptr()),
                    begin: bio.begin(),
                    target: NonNull::from(target).cast(),
                    go_on: go_on::<T>,
                    kind,
                },
            });
            NonNull::new_unchecked(link)
        }
    }
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
        self.0 = unsafe { (*first.as_ptr()).next };
        Some(first)
    }

    /// Removes all links and returns them.
    pub(crate) fn take(&mut self) -> Self {
        core::mem::replace(self, Self::EMPTY)
    }

    /// Lets all bios of the list continue, each in a worker of its target. Any context.
    pub(crate) fn go_on(mut self) {
        while let Some(link) = self.pop() {
            // SAFETY: The link was removed from the list, so it is ours.
            let go_on = unsafe { (*link.as_ptr()).state.go_on };
            // SAFETY: As above. The function is that of the target's type. The link is not used
            // after the call.
            unsafe { go_on(link) };
        }
    }

    /// Removes the links for which `goes` returns true, and returns them.
    pub(super) fn take_if(
        &mut self,
        mut goes: impl FnMut(NonNull<BioLink>, &mut BioState) -> bool,
    ) -> Self {
        let (mut stay, mut gone) = (Self::EMPTY, Self::EMPTY);
        while let Some(link) = self.pop() {
            // SAFETY: By the type invariant the link was ours, and it is in no list now.
            let goes = goes(link, unsafe { &mut (*link.as_ptr()).state });
            let list = if goes { &mut gone } else { &mut stay };
            // SAFETY: As above.
            unsafe { list.push(link) };
        }
        *self = stay;
        gone
    }

    /// Calls `visit` with each link, whose state is only borrowed during the call.
    pub(super) fn for_each(&mut self, mut visit: impl FnMut(NonNull<BioLink>, &mut BioState)) {
        let mut next = self.0;
        while let Some(link) = NonNull::new(next) {
            // SAFETY: By the type invariant.
            visit(link, unsafe { &mut (*link.as_ptr()).state });
            // SAFETY: As above.
            next = unsafe { (*link.as_ptr()).next };
        }
    }
}

/// Lets a bio continue in a worker of its target. Any context.
///
/// # Safety
///
/// The link is in no list and is the caller's, who does not use it after the call; the target is a
/// `T`.
pub(super) unsafe fn go_on<T: Follow>(link: NonNull<BioLink>) {
    // SAFETY: By the safety requirements. The bio is in flight until it is queued, and so its
    // target is alive.
    let pending = unsafe {
        let work = Opaque::cast_into(&raw const (*link.as_ptr()).work);
        let target = (*link.as_ptr()).state.target.cast::<T>();
        target.as_ref().queue().prepare(work, resumed::<T>)
    };
    // SAFETY: The link lives until `resumed` has finished with the bio, and so does the queue.
    unsafe { pending.queue() };
}

/// # Safety
///
/// Called by a workqueue for a link that was passed to [`go_on`].
unsafe extern "C" fn resumed<T: Follow>(work: *mut work_struct) {
    let link = work.cast::<BioLink>();
    // SAFETY: The link is ours until the bio is passed on.
    let (bio, begin, target, why) = unsafe {
        let why = match (*link).state.kind {
            Kind::Follower { why, .. } => why,
            Kind::Leader { .. } | Kind::Deferred => Wake::Deferred,
        };
        let (bio, begin) = ((*link).state.bio, (*link).state.begin);
        (bio, begin, (*link).state.target.cast::<T>(), why)
    };
    // SAFETY: We own the bio, which is in flight. From now on it completes only when it has been
    // ended twice.
    unsafe { bindings::dm_rust_bio_hold(bio.as_ptr()) };
    // SAFETY: We own the bio. The target lives as long as the bio is in flight, which it is until
    // it is released below, whatever the function does.
    let mapped = unsafe {
        let bio = Bio::from_raw(bio, begin, false);
        target.as_ref().resume_bio(bio, why)
    };
    // SAFETY: The target's function has returned.
    unsafe { mapped.carry_out() };
    // SAFETY: Held above. Neither the bio nor the target is used afterwards.
    unsafe { bindings::dm_rust_bio_release(bio.as_ptr()) };
}
