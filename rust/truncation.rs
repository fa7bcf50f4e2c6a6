// SPDX-License-Identifier: GPL-2.0

//! Pages that are zeroed in part and stay in the page cache, clean.
//!
//! Truncating a page cache inside a page, or inside a larger folio, zeroes a part of it. As a
//! rule the file system marks it dirty next; but it may fail before it does, and nobody has to
//! where the page cache is a block device's own. None of the events of [`crate::tracepoint`]
//! tells of that.
//!
//! A kernel with our patch has a tracepoint for it, under the folio's lock and before the change.
//! Elsewhere it is the function tracer, on entry to all functions by which another source file can
//! truncate a page cache: they truncate inside a folio at the first and at the last byte of their
//! range, and nowhere else. The folio isn't locked yet then. Its reader may still be at it
//! ([`TruncatedPages::settled`]); but nobody begins to read it into the page cache any more, as
//! that takes `invalidate_lock` shared, and those who truncate hold it exclusively. (Some who
//! have failed to write don't; that is looked at, too.)
//!
//! C sources: [`mm/truncate.c`](srctree/mm/truncate.c),
//! [`include/linux/ftrace.h`](srctree/include/linux/ftrace.h)

use core::{marker::PhantomData, ptr::NonNull};

use kernel::{
    bindings::{address_space, folio, loff_t},
    error::from_err_ptr,
    ffi::c_void,
    prelude::*,
    sync::{rcu, Arc},
};

use crate::{
    bindings,
    folio::{EventFolio, FolioRef, Inode, MappingId, PAGE_SHIFT},
    tracepoint::{synchronize, Probe},
};

/// Pages of a page cache that may be zeroed in part.
///
/// # Invariants
///
/// The mapping is alive for `'a`.
pub struct TruncatedPages<'a> {
    mapping: MappingId,
    range: (u64, u64),
    settled: bool,
    _alive: PhantomData<&'a ()>,
}

impl<'a> TruncatedPages<'a> {
    /// The page cache that they are in.
    pub fn mapping(&self) -> MappingId {
        self.mapping
    }

    /// First and last file index.
    pub fn range(&self) -> (u64, u64) {
        self.range
    }

    /// Whoever read them has done so before now. If not, they may still be about to be read, and
    /// be zeroed after that.
    pub fn settled(&self) -> bool {
        self.settled
    }

    /// The inode that the page cache belongs to.
    pub fn inode(&self) -> Inode<'a> {
        // SAFETY: By the type invariant.
        unsafe { Inode::of(self.mapping) }
    }
}

/// Is told of truncations inside a folio.
pub trait TruncationEvents: Send + Sync {
    /// A part of `pages` is going to be zeroed. Any context but NMI; the folio may be locked.
    fn truncates(&self, pages: &TruncatedPages<'_>);
}

/// How we come to know.
enum Watch {
    Tracepoint(Option<Probe>),
    Functions(NonNull<bindings::dm_rust_truncations>),
}

/// Sends all truncations to a `T` for as long as it lives.
///
/// # Invariants
///
/// The watch is on, and its data is the `T`.
pub struct Truncations<T: TruncationEvents> {
    watch: Watch,
    _target: Arc<T>,
}

// SAFETY: The watch may be ended by any task, and `T` can be sent and shared.
unsafe impl<T: TruncationEvents> Send for Truncations<T> {}
// SAFETY: As above.
unsafe impl<T: TruncationEvents> Sync for Truncations<T> {}

impl<T: TruncationEvents> Truncations<T> {
    /// Starts sending events to `target`. Process context.
    ///
    /// Fails with `EOPNOTSUPP` if the kernel has neither the tracepoint nor a function tracer that
    /// can be relied upon, `EBUSY` if that is switched off (sysctl `kernel.ftrace_enabled`),
    /// and `ENOMEM`.
    pub fn new(target: Arc<T>) -> Result<Self> {
        let data = core::ptr::from_ref::<T>(&target).cast_mut().cast();
        let watch = match Probe::find(c"mm_filemap_zero_partial_folio") {
            // SAFETY: The prototype is that of our patch; `target` is kept alive until the probe
            // has ended in `drop`.
            Some(tracepoint) => Watch::Tracepoint(Some(unsafe {
                Probe::new(tracepoint, Self::zeroes as *mut c_void, data)
            }?)),
            None => {
                // SAFETY: `target` is kept alive until the watch has ended in `drop`.
                let watch = from_err_ptr(unsafe {
                    bindings::dm_rust_watch_truncations(Some(Self::truncates), data)
                })?;
                Watch::Functions(NonNull::new(watch).ok_or(ENOMEM)?)
            }
        };
        // INVARIANT: Just started.
        Ok(Self {
            watch,
            _target: target,
        })
    }

    /// # Safety
    ///
    /// Called as a probe with the data of [`Self::new`].
    unsafe extern "C" fn zeroes(data: *mut c_void, folio: *mut folio) {
        // SAFETY: `data` is a `T`, by the safety requirements.
        let target = unsafe { &*data.cast::<T>() };
        // SAFETY: The tracepoint fires with the folio locked and in its mapping.
        if let Some(folio) = unsafe { EventFolio::in_own_mapping(folio) } {
            // INVARIANT: As above.
            target.truncates(&TruncatedPages {
                mapping: folio.mapping(),
                range: folio.range(),
                settled: true,
                _alive: PhantomData,
            });
        }
    }

    /// # Safety
    ///
    /// Called with the data of [`Self::new`] and a page cache that is going to be truncated from
    /// byte `first` to byte `last`.
    unsafe extern "C" fn truncates(
        data: *mut c_void,
        mapping: *mut address_space,
        first: loff_t,
        last: loff_t,
    ) {
        // SAFETY: `data` is a `T`, by the safety requirements.
        let target = unsafe { &*data.cast::<T>() };
        let Some(mapping) = MappingId::new(mapping) else {
            return;
        };
        // CAST: Offsets; -1 is the end of everything.
        let (first, last) = (first as u64, last as u64);
        let mut told = None;
        for index in [first >> PAGE_SHIFT, last >> PAGE_SHIFT] {
            if told.is_some_and(|(from, to)| (from..=to).contains(&index)) {
                continue;
            }
            // SAFETY: Whoever truncates a page cache keeps it alive.
            let Some(pages) = (unsafe { truncated(mapping, index, first, last) }) else {
                continue;
            };
            told = Some(pages.range);
            target.truncates(&pages);
        }
    }
}

/// The folio at page `index`, if bytes `first..=last` of its page cache, and not all of its own,
/// are going to be zeroed.
///
/// # Safety
///
/// The page cache lives for `'a`, and the caller is about to truncate it.
unsafe fn truncated<'a>(
    mapping: MappingId,
    index: u64,
    first: u64,
    last: u64,
) -> Option<TruncatedPages<'a>> {
    let guard = rcu::read_lock();
    // SAFETY: The page cache is alive.
    let folio = unsafe { FolioRef::find_surely(&guard, mapping, index) };
    let range = folio.as_ref().map_or((index, index), FolioRef::range);
    let end = range.1.wrapping_add(1) << PAGE_SHIFT;
    if first <= range.0 << PAGE_SHIFT && last >= end.wrapping_sub(1) {
        // It leaves the page cache as a whole, which is another event.
        return None;
    }
    // Who only waits for the lock can't be taken for the caller: those who want it exclusively have
    // the inode's lock, which a caller without `invalidate_lock` has.
    // SAFETY: As above.
    let alone = unsafe { mapping.invalidating() };
    let there = folio.is_some();
    let settled = alone && folio.is_none_or(|folio| folio.state().uptodate());
    // INVARIANT: By the safety requirements.
    (there || !settled).then_some(TruncatedPages {
        mapping,
        range,
        settled,
        _alive: PhantomData,
    })
}

impl<T: TruncationEvents> Drop for Truncations<T> {
    fn drop(&mut self) {
        match &mut self.watch {
            Watch::Tracepoint(probe) => {
                *probe = None;
                synchronize();
            }
            // SAFETY: On, by the type invariant; it waits for callbacks that run.
            Watch::Functions(watch) => unsafe {
                bindings::dm_rust_unwatch_truncations(watch.as_ptr())
            },
        }
    }
}
