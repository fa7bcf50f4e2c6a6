// SPDX-License-Identifier: GPL-2.0

//! A scratch page for each CPU, in which copies are proven before they are served.
//!
//! C headers: [`include/linux/preempt.h`](srctree/include/linux/preempt.h),
//! [`include/linux/smp.h`](srctree/include/linux/smp.h)

use core::sync::atomic::{compiler_fence, Ordering};

use kernel::{
    cpu::{nr_cpu_ids, CpuId},
    page::Page,
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};

use crate::{bindings, pagecache::folio::PageWords};

/// The page of one CPU, in a cache line that no other CPU writes to.
#[repr(align(64))]
struct Slot {
    page: Page,
    /// Whether this CPU is using the page.
    busy: Atomic<bool>,
}

/// A scratch page for each CPU.
///
/// # Examples
///
/// Copies a page of `folio` to a reader if the copy has the digest; otherwise the reader gets
/// nothing.
///
/// ```ignore
/// let at = folio.page_at(index)?;
/// let proven = self.scratch.with(|words| {
///     let proven = folio.copy_page(at, words) && self.digest_of(words) == digest;
///     if proven {
///         writer.write(bytes(words));
///     }
///     proven
/// });
/// ```
pub struct ScratchPages(KVec<Slot>);

/// Keeps the task on its CPU while the value lives. Only interrupts may run there in between.
struct NoPreemption;

impl NoPreemption {
    fn new() -> Self {
        // SAFETY: May always be called; undone when the value is dropped.
        unsafe { bindings::dm_rust_preempt_disable() };
        Self
    }
}

impl Drop for NoPreemption {
    fn drop(&mut self) {
        // SAFETY: Undoes what `new` did.
        unsafe { bindings::dm_rust_preempt_enable() };
    }
}

impl ScratchPages {
    /// Allocates the pages. Process context. Fails with `ENOMEM`.
    pub fn new() -> Result<Self> {
        let mut slots = KVec::new();
        for _ in 0..nr_cpu_ids() {
            let slot = Slot {
                page: Page::alloc_page(GFP_KERNEL)?,
                busy: Atomic::new(false),
            };
            slots.push(slot, GFP_KERNEL)?;
        }
        Ok(Self(slots))
    }

    /// Calls `visit` with this CPU's page, which holds data from earlier uses.
    ///
    /// `visit` runs with preemption disabled, so it must neither sleep nor take long. Returns
    /// `None` without calling `visit` if the page is in use, by the code that an interrupt has
    /// interrupted or by a caller further up.
    #[inline]
    pub fn with<R>(&self, visit: impl FnOnce(&mut PageWords) -> R) -> Option<R> {
        let _here = NoPreemption::new();
        // CAST: A `u32` fits.
        let slot = self.0.get(CpuId::current().as_u32() as usize)?;
        if slot.busy.load(Relaxed) {
            return None;
        }
        // An interrupt on this CPU that finds the page free overwrites it. So the page is marked
        // before its first use and released after the last, and the compiler must not move a use
        // past either.
        slot.busy.store(true, Relaxed);
        compiler_fence(Ordering::SeqCst);
        // SAFETY: The page is as large as the array, is aligned, and lives as long as `self`. Other
        // callers on this CPU find it busy, and no other CPU uses it.
        let words = unsafe { &mut *bindings::dm_rust_page_address(slot.page.as_ptr()).cast() };
        let result = visit(words);
        compiler_fence(Ordering::SeqCst);
        slot.busy.store(false, Relaxed);
        Some(result)
    }
}

#[kunit_tests(dm_scratch)]
mod tests {
    use super::*;

    #[test]
    fn is_used_by_one_at_a_time() -> Result {
        let pages = ScratchPages::new()?;
        let inner = pages.with(|words| {
            words[0] = 7;
            pages.with(|words| words[0])
        });
        assert_eq!(inner, Some(None));
        assert!(pages.with(|_| ()).is_some());
        Ok(())
    }
}
