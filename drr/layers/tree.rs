// SPDX-License-Identifier: GPL-2.0

//! The layer tree: which thin device is a snapshot of which, and since when.
//!
//! The tree tells which layer wrote a block that a layer maps. Each mapping carries the pool's time
//! at which it was made, and each snapshot increments that time, so the mappings that a snapshot
//! has inherited are older than the snapshot: the owner of a block is the first of the layer, its
//! parent, its parent's parent and so on that was created at or before the mapping's time.
//!
//! dm-thin's events add layers, with or without a target on them. Layers that are older than the
//! module are added when targets are made on them, and by messages. A deleted layer stays as long
//! as it has descendants or targets, so that its blocks remain its own. A rollback of the pool's
//! metadata removes all of the pool's layers: some of them may not exist after it, and deleted ones
//! may exist again.
//!
//! Readers hold RCU; a lookup takes a step for each generation, regardless of the number of layers.
//!
//! Lock order: `writer`, then the [index](dm::sync::index)'s stripes.

use core::fmt::{self, Write};

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        rcu, Mutex,
    },
};

use dm::sync::index::{hash, Entry, Index, Keyed};

use crate::layers::id::{LayerId, Serial, ThinId};

/// A layer that exists or has existed. Only its atomic fields change.
pub(crate) struct Layer {
    serial: Serial,
    layer: ThinId,
    /// The pool's time when the layer was created.
    created: u32,
    /// Serial number of the parent; 0 if there is none, or none is known. Set once, perhaps later
    /// than the layer is added. The parent was created earlier than this layer, so there is no
    /// cycle.
    parent: Atomic<Serial>,
    deleted: Atomic<bool>,
    /// Number of layers whose parent this is; changed under `writer`.
    children: Atomic<u32>,
    /// Number of targets on the layer; changed under `writer`.
    targets: Atomic<u32>,
}

impl Keyed for Layer {
    fn forward(&self) -> u64 {
        hash(self.serial.into())
    }

    fn reverse(&self) -> u64 {
        hash(self.layer.to_bits())
    }
}

/// An error in a declaration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DeclareError {
    /// The layer isn't known, and the declaration doesn't say when it was created.
    UnknownLayer,
    /// The parent isn't known.
    UnknownParent,
    /// The parent was not created before the layer; it may be a descendant.
    ParentNotOlder,
    /// The layer has a parent already.
    HasParent,
    /// The layer is known to have been created at another time.
    OtherTime,
    /// There is no memory for the layer.
    NoMemory,
}

impl DeclareError {
    /// Returns the text of the error.
    pub(crate) fn text(self) -> &'static str {
        match self {
            DeclareError::UnknownLayer => "unknown layer",
            DeclareError::UnknownParent => "unknown parent",
            DeclareError::ParentNotOlder => "the parent was created later, or is a descendant",
            DeclareError::HasParent => "the layer has a parent already",
            DeclareError::OtherTime => "the layer is known to have been created at another time",
            DeclareError::NoMemory => "out of memory",
        }
    }

    /// Returns what to do about the error.
    pub(crate) fn remedy(self) -> &'static str {
        match self {
            DeclareError::UnknownLayer => "say when it was created, if it exists",
            DeclareError::UnknownParent => "declare the parent first",
            DeclareError::ParentNotOlder => "look at the message layers for the times",
            DeclareError::HasParent | DeclareError::OtherTime => "nothing needs to be declared",
            DeclareError::NoMemory => "try again",
        }
    }
}

impl From<DeclareError> for Error {
    fn from(error: DeclareError) -> Self {
        match error {
            DeclareError::UnknownLayer | DeclareError::UnknownParent => ENOENT,
            DeclareError::HasParent | DeclareError::OtherTime => EEXIST,
            DeclareError::ParentNotOlder => EINVAL,
            DeclareError::NoMemory => ENOMEM,
        }
    }
}

/// log2 of the number of buckets: enough for tens of thousands of layers.
const BITS: u32 = 14;

/// The layers of all pools, see the [module](self).
#[pin_data]
pub(crate) struct Tree {
    nodes: Index<Layer>,
    count: Atomic<u64>,
    /// Serializes writers, and holds the last serial number that was given to a layer.
    #[pin]
    writer: Mutex<Serial>,
}

impl Tree {
    /// Creates an empty tree. Fails with `ENOMEM`.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            nodes: Index::new(BITS)?,
            count: Atomic::new(0),
            writer <- new_mutex!(0, "drr_tree"),
        })
    }

    /// Returns the bytes of memory that the layers take.
    pub(crate) fn bytes(&self) -> u64 {
        // RANGE: A size in memory; `writer` keeps the count from falling below 0.
        self.count.load(Relaxed) * Index::<Layer>::ENTRY_BYTES as u64
    }

    fn live<'g>(&'g self, guard: &'g rcu::Guard, layer: ThinId) -> Option<&'g Entry<Layer>> {
        self.nodes
            .by_reverse(guard, hash(layer.to_bits()))
            .find(|node| node.layer == layer && !node.deleted.load(Relaxed))
    }

    fn node<'g>(&'g self, guard: &'g rcu::Guard, serial: Serial) -> Option<&'g Entry<Layer>> {
        self.nodes
            .by_forward(guard, hash(serial.into()))
            .find(|node| node.serial == serial)
    }

    /// Returns the serial number of a layer that isn't deleted, or 0 if it isn't known.
    pub(crate) fn serial(&self, layer: ThinId) -> Serial {
        let guard = rcu::read_lock();
        self.live(&guard, layer).map_or(0, |node| node.serial)
    }

    /// Returns the serial number of `layer`, and the owner of a block that `layer` maps since the
    /// pool's time `mapped`: [`None`] if the block is older than all known ancestors. Any context.
    pub(crate) fn owner(&self, layer: ThinId, mapped: u32) -> (Serial, Option<LayerId>) {
        let guard = rcu::read_lock();
        let Some(own) = self.live(&guard, layer) else {
            return (0, None);
        };
        let mut node = Some(own);
        while let Some(younger) = node.filter(|node| node.created > mapped) {
            node = self.node(&guard, younger.parent.load(Relaxed));
        }
        let owner = node.map(|node| LayerId {
            serial: node.serial,
            thin_id: node.layer.thin_id(),
        });
        (own.serial, owner)
    }

    /// Adds a layer, and returns its serial number, or 0 if there is no memory. Called with
    /// `writer` held.
    fn add(&self, last: &mut Serial, layer: ThinId, created: u32, parent: Serial) -> Serial {
        // Wraps after 2^32 layers, which takes decades.
        let serial = last.wrapping_add(1).max(1);
        let node = Layer {
            serial,
            layer,
            created,
            parent: Atomic::new(0),
            deleted: Atomic::new(false),
            children: Atomic::new(0),
            targets: Atomic::new(0),
        };
        // Devices are suspended while they are snapshotted or resumed: the allocation must not wait
        // for reclaim, which may need them.
        let flags = GFP_NOWAIT | __GFP_NOWARN;
        if self.nodes.insert_unless(node, flags, |_| false).is_err() {
            return 0;
        }
        self.count.add(1, Relaxed);
        *last = serial;
        self.adopt(serial, parent);
        serial
    }

    /// Makes `child` a child of `parent`, if both are known. Called with `writer` held.
    fn adopt(&self, child: Serial, parent: Serial) {
        let guard = rcu::read_lock();
        if let (Some(child), Some(parent)) = (self.node(&guard, child), self.node(&guard, parent)) {
            parent.children.add(1, Relaxed);
            child.parent.store(parent.serial, Relaxed);
        }
    }

    /// Removes a deleted layer without descendants and targets, and those of its ancestors that
    /// were kept only for this layer. Called with `writer` held.
    fn prune(&self, serial: Serial) {
        let guard = rcu::read_lock();
        let mut next = self.node(&guard, serial);
        while let Some(node) = next {
            let needed = !node.deleted.load(Relaxed)
                || node.children.load(Relaxed) != 0
                || node.targets.load(Relaxed) != 0;
            if needed {
                return;
            }
            self.remove(node);
            next = self.node(&guard, node.parent.load(Relaxed));
            if let Some(parent) = next {
                parent.children.add(1u32.wrapping_neg(), Relaxed);
            }
        }
    }

    fn delete(&self, layer: ThinId) {
        let guard = rcu::read_lock();
        if let Some(node) = self.live(&guard, layer) {
            node.deleted.store(true, Relaxed);
            self.prune(node.serial);
        }
    }

    /// Adds a layer that was created at `time`, as a snapshot of `origin` if given.
    pub(crate) fn created(&self, layer: ThinId, origin: Option<ThinId>, time: u32) {
        let mut last = self.writer.lock();
        // A layer with this id exists only if the event of its deletion was missed.
        self.delete(layer);
        let parent = origin.map_or(0, |origin| self.serial(origin));
        self.add(&mut last, layer, time, parent);
    }

    /// Marks a layer as deleted, and removes it if it isn't needed any more.
    pub(crate) fn deleted(&self, layer: ThinId) {
        let _last = self.writer.lock();
        self.delete(layer);
    }

    /// Removes all layers of a pool.
    pub(crate) fn forget_pool(&self, pool: u64) {
        let _last = self.writer.lock();
        self.nodes.for_each(|node| {
            if node.layer.pool() == pool {
                self.remove(node);
            }
        });
    }

    /// Removes a layer from the index. Called with `writer` held.
    fn remove(&self, node: &Entry<Layer>) {
        if self.nodes.remove(node) {
            self.count.add(1u64.wrapping_neg(), Relaxed);
        }
    }

    /// Counts a target that is made on a layer. Adds the layer if it isn't known, as it may be
    /// older than the module. Returns its serial number, or 0 if there is no memory.
    pub(crate) fn open(&self, layer: ThinId, created: u32) -> Serial {
        let mut last = self.writer.lock();
        let serial = match self.serial(layer) {
            0 => self.add(&mut last, layer, created, 0),
            serial => serial,
        };
        let guard = rcu::read_lock();
        if let Some(node) = self.node(&guard, serial) {
            node.targets.add(1, Relaxed);
        }
        serial
    }

    /// Decrements the number of targets on the layer `serial`. Does nothing if there is no such
    /// layer.
    pub(crate) fn close(&self, serial: Serial) {
        let _last = self.writer.lock();
        let guard = rcu::read_lock();
        if let Some(node) = self.node(&guard, serial) {
            node.targets.add(1u32.wrapping_neg(), Relaxed);
            self.prune(serial);
        }
    }

    /// Returns whether a target is on `layer`.
    pub(crate) fn is_open(&self, layer: ThinId) -> bool {
        let guard = rcu::read_lock();
        self.live(&guard, layer)
            .is_some_and(|node| node.targets.load(Relaxed) != 0)
    }

    /// Applies a declaration that `layer` is a snapshot of `parent`, or of nothing. `created` is
    /// required if the layer isn't known.
    pub(crate) fn declare(
        &self,
        layer: ThinId,
        parent: Option<ThinId>,
        created: Option<u32>,
    ) -> Result<(), DeclareError> {
        let mut last = self.writer.lock();
        let guard = rcu::read_lock();
        let parent = parent
            .map(|parent| self.live(&guard, parent).ok_or(DeclareError::UnknownParent))
            .transpose()?;
        let known = self.live(&guard, layer);
        let time = match (known, created) {
            (Some(node), Some(time)) if node.created != time => {
                return Err(DeclareError::OtherTime)
            }
            (Some(node), _) if node.parent.load(Relaxed) != 0 => {
                return Err(DeclareError::HasParent)
            }
            (Some(node), _) => node.created,
            (None, Some(time)) => time,
            (None, None) => return Err(DeclareError::UnknownLayer),
        };
        // This also excludes cycles.
        if parent.is_some_and(|parent| parent.created >= time) {
            return Err(DeclareError::ParentNotOlder);
        }
        let parent = parent.map_or(0, |parent| parent.serial);
        let known = known.map(|node| node.serial);
        drop(guard);
        match known {
            Some(serial) => self.adopt(serial, parent),
            None if self.add(&mut last, layer, time, parent) == 0 => {
                return Err(DeclareError::NoMemory)
            }
            None => {}
        }
        Ok(())
    }

    /// Prints the layers of a pool, one line each, in the format of `include/uapi/linux/dm-drr.h`.
    pub(crate) fn print(&self, pool: u64, out: &mut dyn Write) -> fmt::Result {
        let _last = self.writer.lock();
        let mut result = Ok(());
        self.nodes.for_each(|node| {
            if node.layer.pool() == pool && result.is_ok() {
                result = node.print(out);
            }
        });
        result
    }
}

impl Layer {
    fn print(&self, out: &mut dyn Write) -> fmt::Result {
        let (serial, thin_id) = (self.serial, self.layer.thin_id());
        write!(out, "layer {serial} {thin_id} ")?;
        match self.parent.load(Relaxed) {
            0 => write!(out, "-")?,
            parent => write!(out, "{parent}")?,
        }
        let state = match self.deleted.load(Relaxed) {
            true => "deleted",
            false => "live",
        };
        let (created, targets) = (self.created, self.targets.load(Relaxed));
        writeln!(out, " {created} {state} {targets}")
    }
}

#[kunit_tests(drr_tree)]
mod tests {
    use super::*;
    use dm::target::status_buffer::printed;
    use kernel::{
        sync::Arc,
        time::{delay::fsleep, Delta, Instant, Monotonic},
        workqueue,
    };

    fn tree() -> Result<Arc<Tree>> {
        Arc::pin_init(Tree::new(), GFP_KERNEL)
    }

    fn layer(thin_id: u32) -> ThinId {
        ThinId::new(1, thin_id)
    }

    /// Returns the thin id of the owner.
    fn owner(tree: &Tree, thin_id: u32, mapped: u32) -> Option<u32> {
        tree.owner(layer(thin_id), mapped)
            .1
            .map(|owner| owner.thin_id)
    }

    /// Creates layer 0, its snapshot 1, 2 as a snapshot of 1, and 3 as one of 0.
    fn family() -> Result<Arc<Tree>> {
        let tree = tree()?;
        tree.created(layer(0), None, 0);
        tree.created(layer(1), Some(layer(0)), 1);
        tree.created(layer(2), Some(layer(1)), 2);
        tree.created(layer(3), Some(layer(0)), 3);
        Ok(tree)
    }

    fn prints(tree: &Tree, text: &[u8]) -> Result {
        let mut buffer = [0; 512];
        let printed = printed(&mut buffer, |out| tree.print(1, out))?;
        // Lines may be in any order.
        let lines = |text: &[u8]| text.split(|byte| *byte == b'\n').count();
        assert_eq!(lines(printed), lines(text));
        for line in text.split(|byte| *byte == b'\n') {
            let mut printed = printed.split(|byte| *byte == b'\n');
            assert!(printed.any(|it| it == line));
        }
        Ok(())
    }

    #[test]
    fn owner_is_who_wrote_it() -> Result {
        let tree = family()?;
        let cases = [
            (0, 0, Some(0)),
            (0, 9, Some(0)),
            (1, 0, Some(0)),
            (1, 1, Some(1)),
            (2, 0, Some(0)),
            (2, 1, Some(1)),
            (2, 2, Some(2)),
            (2, u32::MAX, Some(2)),
            (3, 0, Some(0)),
            (3, 2, Some(0)),
            (3, 3, Some(3)),
            (4, 3, None),
        ];
        for (thin_id, mapped, expected) in cases {
            assert_eq!(owner(&tree, thin_id, mapped), expected);
        }
        prints(
            &tree,
            b"layer 1 0 - 0 live 0\nlayer 2 1 1 1 live 0\nlayer 3 2 2 2 live 0\n\
              layer 4 3 1 3 live 0\n",
        )
    }

    #[test]
    fn deleted_layers_stay_for_their_descendants() -> Result {
        let tree = family()?;
        tree.deleted(layer(1));
        tree.deleted(layer(0));
        // The id is used again, for another layer.
        tree.created(layer(1), None, 4);
        assert_eq!(owner(&tree, 2, 0), Some(0));
        assert_eq!(owner(&tree, 2, 1), Some(1));
        assert_eq!(owner(&tree, 1, 1), None);
        prints(
            &tree,
            b"layer 1 0 - 0 deleted 0\nlayer 2 1 1 1 deleted 0\nlayer 3 2 2 2 live 0\n\
              layer 4 3 1 3 live 0\nlayer 5 1 - 4 live 0\n",
        )?;
        tree.deleted(layer(2));
        prints(
            &tree,
            b"layer 1 0 - 0 deleted 0\nlayer 4 3 1 3 live 0\nlayer 5 1 - 4 live 0\n",
        )?;
        tree.deleted(layer(3));
        prints(&tree, b"layer 5 1 - 4 live 0\n")?;
        // A second deletion, and the deletion of a layer that never existed.
        tree.deleted(layer(3));
        tree.deleted(layer(77));
        prints(&tree, b"layer 5 1 - 4 live 0\n")
    }

    #[test]
    fn older_layers_are_learned_and_declared() -> Result {
        let tree = tree()?;
        let serial = tree.open(layer(9), 7);
        assert_eq!(tree.open(layer(9), 7), serial);
        assert_eq!(owner(&tree, 9, 6), None);
        assert_eq!(owner(&tree, 9, 7), Some(9));
        let declare =
            |id, parent: Option<u32>, time| tree.declare(layer(id), parent.map(layer), time);
        assert_eq!(declare(9, Some(0), None), Err(DeclareError::UnknownParent));
        assert_eq!(declare(0, None, None), Err(DeclareError::UnknownLayer));
        assert_eq!(declare(0, None, Some(0)), Ok(()));
        assert_eq!(declare(8, Some(0), Some(7)), Ok(()));
        assert_eq!(declare(9, Some(8), None), Err(DeclareError::ParentNotOlder));
        assert_eq!(declare(9, Some(9), None), Err(DeclareError::ParentNotOlder));
        assert_eq!(declare(9, Some(0), Some(6)), Err(DeclareError::OtherTime));
        assert_eq!(declare(9, Some(0), Some(7)), Ok(()));
        assert_eq!(declare(9, Some(0), None), Err(DeclareError::HasParent));
        assert_eq!(declare(0, Some(9), None), Err(DeclareError::ParentNotOlder));
        assert_eq!(owner(&tree, 9, 6), Some(0));
        prints(
            &tree,
            b"layer 1 9 2 7 live 2\nlayer 2 0 - 0 live 0\nlayer 3 8 2 7 live 0\n",
        )?;
        // A layer that is deleted while it has targets stays until they go.
        tree.deleted(layer(9));
        tree.close(serial);
        prints(
            &tree,
            b"layer 1 9 2 7 deleted 1\nlayer 2 0 - 0 live 0\nlayer 3 8 2 7 live 0\n",
        )?;
        tree.close(serial);
        tree.close(serial);
        prints(&tree, b"layer 2 0 - 0 live 0\nlayer 3 8 2 7 live 0\n")?;
        tree.forget_pool(2);
        prints(&tree, b"layer 2 0 - 0 live 0\nlayer 3 8 2 7 live 0\n")?;
        tree.forget_pool(1);
        prints(&tree, b"")
    }

    // A kernel that checks each access runs this whenever the module is loaded.
    const MANY: u32 = if cfg!(CONFIG_KASAN) { 300 } else { 10_000 };

    /// Returns the nanoseconds that a lookup takes.
    fn cost(tree: &Tree, thin_id: u32, mapped: u32) -> i64 {
        const TIMES: i64 = 2000;
        let start = Instant::<Monotonic>::now();
        for _ in 0..TIMES {
            assert!(owner(tree, core::hint::black_box(thin_id), mapped).is_some());
        }
        start.elapsed().as_nanos() / TIMES
    }

    #[test]
    fn look_ups_cost_by_generation() -> Result {
        let (few, many) = (family()?, family()?);
        for id in 4..MANY {
            many.created(layer(id), Some(layer(0)), id);
        }
        pr_info!(
            "the owner two generations up, of 4 layers: {} ns; of {MANY}: {} ns\n",
            cost(&few, 2, 0),
            cost(&many, 2, 0)
        );
        for id in 0..MANY {
            assert_eq!(owner(&many, id, id), Some(id));
        }
        for id in 0..MANY {
            many.deleted(layer(id));
        }
        prints(&many, b"")
    }

    #[test]
    fn a_long_chain_goes_at_once() -> Result {
        let tree = tree()?;
        tree.created(layer(0), None, 0);
        for id in 1..MANY {
            tree.created(layer(id), Some(layer(id - 1)), id);
        }
        for id in (0..MANY).step_by(100) {
            assert_eq!(owner(&tree, MANY - 1, id), Some(id));
        }
        // The oldest first, so that all deleted layers are kept for the last one.
        for id in 0..MANY - 1 {
            tree.deleted(layer(id));
        }
        assert_eq!(owner(&tree, MANY - 1, 0), Some(0));
        tree.deleted(layer(MANY - 1));
        prints(&tree, b"")
    }

    /// Observations by readers of a changing tree.
    struct Seen {
        stop: Atomic<bool>,
        running: Atomic<u32>,
        look_ups: Atomic<u64>,
        wrong: Atomic<u64>,
    }

    impl Seen {
        /// Makes one lookup of layers that stay, whose owners are known, and one of layer 200,
        /// which is created and deleted as a child of 10 or of 25.
        fn look(&self, tree: &Tree, number: u32) {
            let id = number % 50;
            let wrong = owner(tree, 49, 10 * id + number % 10) != Some(id)
                || !matches!(owner(tree, 200, 255), None | Some(10 | 25));
            self.wrong.add(wrong.into(), Relaxed);
            self.look_ups.add(1, Relaxed);
        }
    }

    #[test]
    fn readers_and_writers_at_once() -> Result {
        const READERS: u32 = 4;
        let tree = tree()?;
        for id in 0..50 {
            let parent = (id > 0).then(|| layer(id - 1));
            tree.created(layer(id), parent, 10 * id);
        }
        let seen = Arc::new(
            Seen {
                stop: Atomic::new(false),
                running: Atomic::new(0),
                look_ups: Atomic::new(0),
                wrong: Atomic::new(0),
            },
            GFP_KERNEL,
        )?;
        for reader in 0..READERS {
            let (tree, seen_there) = (tree.clone(), seen.clone());
            seen.running.add(1, Relaxed);
            let read = move || {
                for number in reader.. {
                    if seen_there.stop.load(Relaxed) {
                        break;
                    }
                    seen_there.look(&tree, number);
                    dm::sched::cond_resched();
                }
                seen_there.running.add(1u32.wrapping_neg(), Relaxed);
            };
            if workqueue::system_unbound()
                .try_spawn(GFP_KERNEL, read)
                .is_err()
            {
                seen.running.add(1u32.wrapping_neg(), Relaxed);
            }
        }
        // Until there were enough of both, or the readers don't get to run.
        let start = Instant::<Monotonic>::now();
        let mut changes = 0u32;
        while (seen.look_ups.load(Relaxed) < 10_000 || changes < 1000)
            && start.elapsed().as_millis() < 10_000
        {
            let parent = if changes % 2 == 0 { 10 } else { 25 };
            tree.created(layer(200), Some(layer(parent)), 1000);
            // Layer 200 is kept for its child, and removed with it.
            tree.created(layer(201), Some(layer(200)), 1001);
            tree.deleted(layer(200));
            tree.deleted(layer(201));
            changes += 1;
            dm::sched::cond_resched();
        }
        seen.stop.store(true, Relaxed);
        while seen.running.load(Relaxed) != 0 {
            fsleep(Delta::from_millis(1));
        }
        pr_info!(
            "{} look-ups by {READERS} readers during {changes} changes\n",
            seen.look_ups.load(Relaxed)
        );
        assert_eq!(seen.wrong.load(Relaxed), 0);
        assert!(seen.look_ups.load(Relaxed) > 0);
        for id in 0..50 {
            tree.deleted(layer(id));
        }
        prints(&tree, b"")
    }
}
