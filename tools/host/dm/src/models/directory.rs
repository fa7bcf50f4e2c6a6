// SPDX-License-Identifier: GPL-2.0

//! The directory, page caches and those who copy from them.

use std::sync::{
    atomic::{AtomicU64, Ordering},
    Arc,
};

use kernel::sync::rcu;
use loom::thread;

use super::{explore, join};
use crate::{
    pagecache::cached_pages::CachedPages,
    pagecache::content::Digest,
    pagecache::content::Name,
    pagecache::directory::{Directory, End, Entered, Ledger},
    pagecache::folio::{
        number_in, words_of, LockedFolio, MappingId, PageCache, PageWords, PAGE_WORDS,
    },
    sync::index::hash,
};

/// Contents are named by what they are.
#[derive(Clone, Copy, PartialEq)]
struct Content(u64);

impl Name for Content {
    fn hash(&self) -> u64 {
        hash(self.0)
    }
}

/// How many pages have left the directory.
#[derive(Default)]
struct Ended(AtomicU64);

impl Ledger<Content> for Arc<Ended> {
    type Holder = u32;

    fn ended(&self, _: &Content, _: &u32, _: End, pages: u32) {
        self.0
            .fetch_add(pages.count_ones().into(), Ordering::Relaxed);
    }
}

fn digest_of(words: &[u64]) -> Digest {
    // One to one for small numbers, also of torn pages.
    Digest::from_bits(words[0] << 8 | !words[1] & 0xff)
}

fn digest(content: u64) -> Digest {
    digest_of(&words_of(content))
}

/// A directory, and the page caches that it is about, of a page each.
struct World {
    directory: Directory<Content, Arc<Ended>>,
    /// Pages that have left it.
    ended: Arc<Ended>,
    /// Pages that were entered, and those that differed.
    entered: AtomicU64,
    differed: AtomicU64,
    caches: [MappingId; 3],
    /// Bytes of the empty directory.
    empty: u64,
}

/// What the block holds that all read, and what else there is.
const DISK: u64 = 7;
const OTHER: u64 = 8;

impl World {
    fn new() -> Arc<Self> {
        let ended = Arc::new(Ended::default());
        let directory = Directory::new(1, 1 << 20, ended.clone()).expect("memory");
        let caches = [1, 2, 3].map(|number| PageCache::new(number, 2));
        // So that loom knows what it uses of a large table.
        for cache in caches {
            assert_eq!(directory.end_range(cache, 0..=1, End::Gone), 0);
        }
        Arc::new(Self {
            empty: directory.bytes(),
            directory,
            ended,
            entered: AtomicU64::new(0),
            differed: AtomicU64::new(0),
            caches,
        })
    }

    /// A page of a cache is read from the disk, which has `content` there, as the page with the same number of what
    /// `name` names.
    fn read_as(&self, cache: usize, index: u64, name: u64, content: u64) -> Entered {
        let mut entered = Entered::default();
        if let Some(folio) = LockedFolio::try_new(self.caches[cache], index) {
            if !folio.cached() {
                folio.read(content, |pages| {
                    let pages = CachedPages::read(&pages);
                    let digests = [digest(content)];
                    // CAST: 0 or 1.
                    let page = index as u32;
                    entered = self
                        .directory
                        .enter(Content(name), 0, page, &pages, &digests);
                    let pages = entered.pages.count_ones().into();
                    self.entered.fetch_add(pages, Ordering::Relaxed);
                    let pages = entered.differed.count_ones().into();
                    self.differed.fetch_add(pages, Ordering::Relaxed);
                });
            }
        }
        entered
    }

    fn read(&self) {
        self.read_as(0, 0, DISK, DISK);
    }

    fn remove_from(&self, cache: usize, index: u64) {
        if let Some(folio) = LockedFolio::try_new(self.caches[cache], index) {
            if folio.cached() {
                folio.remove(|folio| {
                    self.directory.folio_removed(&folio);
                });
            }
        }
    }

    fn remove(&self) {
        self.remove_from(0, 0);
    }

    fn modify(&self) {
        if let Some(folio) = LockedFolio::try_new(self.caches[0], 0) {
            if folio.cached() {
                folio.modify(OTHER);
            }
        }
    }

    /// The page goes, and what is read into its memory next is something else.
    fn reuse(&self) {
        self.remove();
        self.read_as(0, 0, OTHER, OTHER);
    }

    /// The page leaves, and then its inode.
    fn evict(&self) {
        self.remove();
        // SAFETY: Nobody else does. Its only page has left, which was told, so that it is found by those only who
        // hold RCU now.
        unsafe { self.caches[0].evict() };
    }

    /// The inode goes before its page's removal is told.
    fn evict_early(&self) {
        // SAFETY: None: this is what must not be.
        unsafe { self.caches[0].evict() };
        let made_up = crate::pagecache::folio::EventFolio::made_up(self.caches[0], (0, 0));
        self.directory.folio_removed(&made_up);
    }

    /// As `drr/io/copy.rs`: find, copy, prove.
    fn copy(&self, prove: bool) -> Option<PageWords> {
        let guard = rcu::read_lock();
        let mut donors = self.directory.donors(&guard, Content(DISK));
        let donor = donors.find(|donor| donor.pages_from(0) != 0)?;
        let digest = donor.digest(0)?;
        let folio = donor.folio(0)?;
        let mut page = [0; PAGE_WORDS];
        if !folio.copy_page(donor.index(0), &mut page) {
            return None;
        }
        if digest_of(&page) != digest && prove {
            self.directory.end_changed(&donor, 0);
            return None;
        }
        Some(page)
    }

    /// The figures agree with what is there; and nothing is left when all pages have been removed.
    fn check(&self) {
        self.check_sums();
        for cache in 0..self.caches.len() {
            for index in 0..2 {
                self.remove_from(cache, index);
            }
        }
        self.check_sums();
        assert_eq!(self.directory.pages(), 0);
        assert_eq!(self.directory.extents(), 0);
        assert_eq!(self.directory.bytes(), self.empty, "contents are left over");
        let count = |pages: &AtomicU64| pages.load(Ordering::Relaxed);
        let (entered, ended) = (count(&self.entered), count(&self.ended.0));
        // What is found to differ when it is entered has been there, and isn't told to be.
        let differed = count(&self.differed);
        assert!((entered..=entered + differed).contains(&ended));
    }

    fn check_sums(&self) {
        let (mut runs, mut pages) = (0, 0);
        self.directory.each_name(0, usize::MAX, |holders| {
            for donor in holders.donors() {
                runs += 1;
                pages += u64::from(donor.pages().count_ones());
            }
            true
        });
        assert_eq!(
            (self.directory.extents(), self.directory.pages()),
            (runs, pages)
        );
    }

    /// Whether a page of what `name` names is in the directory, and whether it can donate.
    fn state_of(&self, name: u64, page: u32) -> (bool, bool) {
        let guard = rcu::read_lock();
        let mut state = (false, false);
        for donor in self.directory.donors(&guard, Content(name)) {
            if donor.pages_from(page) != 0 {
                state.0 = true;
                state.1 |= donor.digest(page).is_some();
            }
        }
        state
    }
}

fn spawn<T: 'static>(
    world: &Arc<World>,
    what: impl FnOnce(&World) -> T + 'static,
) -> thread::JoinHandle<T> {
    let world = world.clone();
    thread::spawn(move || what(&world))
}

fn copied_while(actor: fn(&World), prove: bool) {
    explore(Some(3), move || {
        let world = World::new();
        world.read();
        let threads = [spawn(&world, actor), spawn(&world, World::read)];
        if let Some(page) = world.copy(prove) {
            assert_eq!(number_in(&page), Some(DISK), "a wrong page was served");
        }
        join(threads);
        // Whoever is left in the directory is right, or is found out.
        if let Some(page) = world.copy(true) {
            assert_eq!(number_in(&page), Some(DISK), "a wrong page was proven");
        }
        world.check();
    });
}

#[test]
fn a_page_goes_and_comes_while_it_is_copied() {
    copied_while(World::remove, true);
}

#[test]
fn a_page_is_modified_while_it_is_copied() {
    copied_while(World::modify, true);
}

#[test]
fn a_page_is_used_for_something_else_while_it_is_copied() {
    copied_while(World::reuse, true);
}

/// Without the proof the models find the wrong page: they can fail.
#[test]
#[should_panic(expected = "a wrong page was served")]
fn without_proof_what_is_left_of_a_page_is_served() {
    copied_while(World::remove, false);
}

#[test]
#[should_panic(expected = "a wrong page was served")]
fn without_proof_a_modified_page_is_served() {
    copied_while(World::modify, false);
}

#[test]
#[should_panic(expected = "a wrong page was served")]
fn without_proof_another_page_is_served() {
    copied_while(World::reuse, false);
}

fn inode_gone_with(actor: fn(&World)) {
    explore(Some(3), move || {
        let world = World::new();
        world.read();
        let copy = |world: &World| {
            world.copy(true);
        };
        let threads = [spawn(&world, copy), spawn(&world, actor)];
        join(threads);
    });
}

/// Nobody looks into an inode that is gone.
#[test]
fn an_inode_goes_while_its_page_is_copied() {
    inode_gone_with(World::evict);
}

/// The model can fail: what isn't told before the inode goes is found later.
#[test]
#[should_panic(expected = "an inode is used that is gone")]
fn told_too_late_an_inode_is_used_that_is_gone() {
    inode_gone_with(World::evict_early);
}

/// Two enter the same name at the same time, and another page cache has it already, or not.
fn births(known: bool, contents: [u64; 2], check: fn(&World, [Entered; 2])) {
    explore(Some(3), move || {
        let world = World::new();
        if known {
            world.read();
            // It stays, and with it what is known of the content.
            world.read_as(0, 1, DISK, OTHER + 1);
        }
        let enter = |at: usize| {
            spawn(&world, move |world| {
                world.read_as(1 + at, 0, DISK, contents[at])
            })
        };
        let entered = join([enter(0), enter(1)]);
        check(&world, entered);
        world.check();
    });
}

/// The same content twice: both are on record.
fn both(world: &World, entered: [Entered; 2]) {
    assert!(entered.iter().all(|it| it.pages == 1 && it.differed == 0));
    assert_eq!(world.state_of(DISK, 0), (true, true));
}

#[test]
fn one_content_is_entered_twice_at_once() {
    births(false, [DISK, DISK], |world, entered| {
        both(world, entered);
        assert_eq!(world.directory.pages(), 2);
    });
}

#[test]
fn one_content_is_entered_twice_at_once_by_a_known_name() {
    births(true, [DISK, DISK], |world, entered| {
        both(world, entered);
        assert_eq!(world.directory.pages(), 4);
        assert!(entered.iter().all(|it| it.compared == 1));
    });
}

/// Two pages of a run are entered at once: neither is lost.
fn two_pages_of_a_run(check: fn(&World)) {
    explore(Some(3), move || {
        let world = World::new();
        let enter = |page: u64| {
            spawn(&world, move |world| {
                world.read_as(0, page, DISK, DISK + page)
            })
        };
        let entered = join([enter(0), enter(1)]);
        assert_eq!(entered.map(|it| it.pages), [0b01, 0b10]);
        assert_eq!((world.directory.extents(), world.directory.pages()), (1, 2));
        check(&world);
        world.check();
    });
}

#[test]
fn two_pages_of_a_run_are_entered_at_once() {
    two_pages_of_a_run(|world| {
        assert!(world.state_of(DISK, 0).0 && world.state_of(DISK, 1).0);
    });
}

#[test]
fn two_pages_that_are_entered_at_once_donate() {
    two_pages_of_a_run(|world| {
        assert_eq!(world.state_of(DISK, 0), (true, true));
        assert_eq!(
            world.state_of(DISK, 1),
            (true, true),
            "a page is on record, and can't donate"
        );
    });
}

/// A content that differs from what is known ends all records of the page, whatever comes at the same time.
#[test]
fn what_differs_donates_no_more() {
    births(true, [DISK, OTHER], |world, entered| {
        assert_eq!(entered[1].differed, 1);
        assert!(!world.state_of(DISK, 0).1, "a page that differed donates");
    });
}

#[test]
fn what_differs_ends_the_page() {
    births(true, [DISK, OTHER], |world, entered| {
        assert_eq!(entered[1].differed, 1);
        assert_eq!(
            world.state_of(DISK, 0),
            (false, false),
            "a page that differed is on record"
        );
    });
}

/// Two that differ, and nothing was known: one of them is told.
#[test]
fn one_of_two_that_differ_is_told() {
    births(false, [DISK, OTHER], |world, entered| {
        let differed = entered.iter().any(|it| it.differed != 0);
        assert!(differed, "two contents of a name, and nobody is told");
        assert_eq!(
            world.state_of(DISK, 0),
            (false, false),
            "a page that differed is on record"
        );
    });
}
