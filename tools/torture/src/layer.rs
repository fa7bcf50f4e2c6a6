// SPDX-License-Identifier: GPL-2.0

//! A layer: one thin device with what stands on it, its files and their shadows.
//!
//! Locks, in this order:
//!
//! - `Slot`: shared by whoever uses the slot's layer, exclusive to replace or remount it;
//! - `Layer::mutate`: shared by whoever changes files, exclusive to take a snapshot;
//! - `File::layout`: shared to read, and to write within the file; exclusive for what changes
//!   the file's size or moves its content. Of two files the one with the lower number first;
//! - `File::writer`: one writer within a file at a time;
//! - `File::shadow`: never held during a system call.

use std::fs;
use std::io::Result;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, RwLock, RwLockWriteGuard};

use crate::config::{Config, Fs, Journal};
use crate::content::{Key, AUTHORS, UNIT};
use crate::pool::{run, Pool};
use crate::shadow::Shadow;
use crate::sys::{self, Buffer};

/// The number of the only file of a raw device.
pub const RAW_FILE: u16 = 1000;
/// Sectors of a raw device.
pub const RAW_SECTORS: u64 = 12 * 2048;
/// Sectors of a file system's device.
pub const FS_SECTORS: u64 = 320 * 2048;

/// A file.
pub struct File {
    /// Its number, in keys.
    pub number: u16,
    /// Nobody changes it: what all siblings share.
    pub fixed: bool,
    /// Excludes changes of size and place.
    pub layout: RwLock<()>,
    /// Excludes other writers.
    pub writer: Mutex<()>,
    /// The expected content.
    pub shadow: Mutex<Shadow>,
}

impl File {
    fn new(number: u16, fixed: bool, keys: Arc<Vec<Key>>) -> Self {
        File {
            number,
            fixed,
            layout: RwLock::new(()),
            writer: Mutex::new(()),
            shadow: Mutex::new(Shadow::new(keys)),
        }
    }

    /// The size, in units.
    pub fn units(&self) -> usize {
        self.shadow.lock().unwrap().units()
    }
}

/// What is known of a file when it is copied by a snapshot.
#[derive(Clone)]
pub struct FileImage {
    number: u16,
    fixed: bool,
    keys: Arc<Vec<Key>>,
}

/// What a snapshot has.
#[derive(Clone)]
pub struct Image {
    /// The thin device.
    pub thin: u32,
    /// The one that it is a snapshot of, or itself.
    origin: u32,
    /// Whose data may be in it.
    pub lineage: Vec<bool>,
    files: Vec<FileImage>,
}

impl Image {
    /// The same content in another thin device.
    pub fn copied_to(&self, thin: u32) -> Self {
        Image {
            thin,
            origin: self.thin,
            ..self.clone()
        }
    }
}

/// A layer that is mounted, or open as a raw device.
pub struct Layer {
    /// Its devices are c-NAME and t-NAME.
    pub name: String,
    /// Its thin id, which [`Self::moves_to`] changes.
    thin: AtomicU32,
    /// The thin device that it was made of; it may be gone.
    pub origin: u32,
    /// What it writes is marked with this.
    pub author: u16,
    /// Whose data it may have.
    pub lineage: Vec<bool>,
    /// No file system.
    pub raw: bool,
    /// Its files.
    pub files: Vec<File>,
    /// Excludes changes of content.
    pub mutate: RwLock<()>,
    /// The pool fails: files that change may have any content of the layer's own.
    pub faulty: AtomicBool,
    /// Keeps the page cache of a raw device.
    _open: Option<fs::File>,
}

impl Layer {
    /// Sectors of its device.
    pub fn sectors(raw: bool) -> u64 {
        if raw {
            RAW_SECTORS
        } else {
            FS_SECTORS
        }
    }

    /// Its thin id.
    pub fn thin(&self) -> u32 {
        self.thin.load(Relaxed)
    }

    /// Its data is in another thin device now.
    pub fn moves_to(&self, thin: u32) {
        self.thin.store(thin, Relaxed);
    }

    /// A file's path.
    pub fn path(&self, file: &File) -> PathBuf {
        if self.raw {
            PathBuf::from(format!("/dev/mapper/c-{}", self.name))
        } else {
            self.root().join(format!("f{:03}", file.number))
        }
    }

    /// Where it is mounted.
    pub fn root(&self) -> PathBuf {
        mount_point(&self.name)
    }

    /// Writes back all that is dirty.
    pub fn sync(&self) -> Result<()> {
        let file = fs::File::open(self.path(&self.files[0]))?;
        if self.raw {
            file.sync_all()
        } else {
            sys::syncfs(&file)
        }
    }

    /// What a snapshot of it has, with `mutate` held exclusively.
    pub fn image(&self, thin: u32) -> Image {
        let of = |file: &File| FileImage {
            number: file.number,
            fixed: file.fixed,
            keys: file.shadow.lock().unwrap().keys(),
        };
        Image {
            thin,
            origin: self.thin(),
            lineage: self.lineage.clone(),
            files: self.files.iter().map(of).collect(),
        }
    }

    /// Activates a thin device, puts drr on it, and mounts it.
    pub fn open(
        pool: &Pool,
        config: &Config,
        name: &str,
        image: &Image,
        author: u16,
        features: &[&str],
    ) -> Result<Self> {
        let raw = image.files[0].number == RAW_FILE;
        pool.thin_open(name, image.thin, Self::sectors(raw))?;
        let open = attach(pool, config, name, raw, features)?;
        let mut lineage = image.lineage.clone();
        lineage[usize::from(author)] = true;
        let files = image.files.iter();
        Ok(Layer {
            name: name.to_owned(),
            thin: AtomicU32::new(image.thin),
            origin: image.origin,
            author,
            lineage,
            raw,
            files: files
                .map(|it| File::new(it.number, it.fixed, it.keys.clone()))
                .collect(),
            mutate: RwLock::new(()),
            faulty: AtomicBool::new(false),
            _open: open,
        })
    }

    /// Unmounts it and removes its devices; what it had.
    pub fn close(self, pool: &Pool) -> Result<Image> {
        let image = self.image(self.thin());
        let name = self.name.clone();
        if !self.raw {
            sys::umount(&self.root())?;
        }
        drop(self);
        pool.top_close(&name)?;
        pool.thin_close(&name)?;
        Ok(image)
    }
}

fn mount_point(name: &str) -> PathBuf {
    PathBuf::from(format!("/mnt/{name}"))
}

/// Reads some of a device that is about to be mounted into its page cache, where the file system's buffers will be:
/// metadata, and some of the files.
fn look_at(device: &Path) -> Result<()> {
    let handle = sys::open(device, libc::O_RDONLY)?;
    let mut buffer = sys::Buffer::new(256 << 10);
    for at in [0, 1 << 20, 9 << 20, 33 << 20] {
        sys::pread(&handle, buffer.bytes_mut(256 << 10), at, 0)?;
    }
    Ok(())
}

fn attach(
    pool: &Pool,
    config: &Config,
    name: &str,
    raw: bool,
    features: &[&str],
) -> Result<Option<fs::File>> {
    pool.top_open(name, Layer::sectors(raw), features)?;
    let device = PathBuf::from(format!("/dev/mapper/c-{name}"));
    if raw {
        return sys::open(&device, libc::O_RDONLY).map(Some);
    }
    look_at(&device)?;
    fs::create_dir_all(mount_point(name))?;
    sys::mount(
        &device,
        &mount_point(name),
        config.fs.kind(),
        config.fs.options(),
    )?;
    Ok(None)
}

/// A place for a layer; it is empty while the layer is replaced.
pub struct Slot {
    /// Names its devices.
    pub name: String,
    /// No file system.
    pub raw: bool,
    /// What is there now.
    pub layer: RwLock<Option<Layer>>,
    /// Somebody wants to replace it: long operations are to end early.
    pub wanted: AtomicBool,
}

impl Slot {
    /// An empty one.
    pub fn new(name: String, raw: bool) -> Self {
        Slot {
            name,
            raw,
            layer: RwLock::new(None),
            wanted: AtomicBool::new(false),
        }
    }

    /// Takes it from those who use it.
    pub fn take(&self) -> RwLockWriteGuard<'_, Option<Layer>> {
        self.wanted.store(true, Relaxed);
        let guard = self.layer.write().unwrap();
        self.wanted.store(false, Relaxed);
        guard
    }
}

// --- images from scratch ---

/// The author of the files of the base image; others count from there.
pub const BASE: u16 = 1;

fn mkfs(fs: Fs, device: &str) -> Result<()> {
    let block = fs.block().to_string();
    match fs {
        Fs::Ext4(_, journal) => {
            let mut arguments = vec!["-q", "-F", "-b", &block, "-N", "1024", "-m", "0"];
            match journal {
                Journal::None => arguments.extend(["-O", "^has_journal"]),
                Journal::Ext2 => arguments.extend(["-O", "^has_journal,^extent,^64bit"]),
                _ => arguments.extend(["-J", "size=16"]),
            }
            let lazy = "lazy_itable_init=0,lazy_journal_init=1,nodiscard";
            arguments.extend(["-E", lazy, device]);
            run("mkfs.ext4", &arguments)?;
        }
        Fs::Xfs(_) => {
            // mkfs.xfs refuses small devices unless told that it is a test
            let size = format!("size={block}");
            let arguments = [
                "TEST_DIR=1",
                "TEST_DEV=1",
                "QA_CHECK_FS=1",
                "mkfs.xfs",
                "-q",
                "-f",
                "-K",
                "-b",
            ];
            run(
                "env",
                &[&arguments[..], &[&size, "-l", "size=16m", device]].concat(),
            )?;
        }
    }
    Ok(())
}

/// Sizes of the files, in units: small ones, and some that large folios are made for.
fn sizes(rng: &mut fastrand::Rng) -> Vec<usize> {
    let mut sizes = Vec::new();
    for (count, low, high) in [
        (12, 1, 512),
        (14, 1024, 8192),
        (8, 16384, 20000),
        (2, 65536, 65536),
    ] {
        sizes.extend((0..count).map(|_| rng.usize(low..=high)));
    }
    sizes
}

fn write_all(file: &fs::File, keys: &[Key], buffer: &mut Buffer) -> Result<()> {
    for (index, keys) in keys.chunks(buffer.len() / UNIT).enumerate() {
        crate::content::fill(buffer.words_mut(), keys);
        let at = (index * buffer.len()) as u64;
        sys::pwrite(file, buffer.bytes_mut(keys.len() * UNIT), at, 0)?;
    }
    file.sync_all()
}

/// A thin device with a file system and the files that all siblings share; not active.
pub fn make_image(pool: &Pool, config: &Config, rng: &mut fastrand::Rng) -> Result<Image> {
    let mut buffer = Buffer::new(1 << 20);
    let thin = pool.thin_new()?;
    let device = "/dev/mapper/t-base";
    let root = mount_point("base");
    pool.thin_open("base", thin, FS_SECTORS)?;
    mkfs(config.fs, device)?;
    fs::create_dir_all(&root)?;
    sys::mount(
        sys::path(device),
        &root,
        config.fs.kind(),
        config.fs.options(),
    )?;
    let mut files = Vec::new();
    for (number, units) in sizes(rng).into_iter().enumerate() {
        let number = number as u16;
        let keys: Vec<Key> = (0..units)
            .map(|unit| Key::new(BASE, number, 0, unit))
            .collect();
        let path = root.join(format!("f{number:03}"));
        let file = sys::open(&path, libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY)?;
        write_all(&file, &keys, &mut buffer)?;
        files.push(FileImage {
            number,
            fixed: number % 2 == 0,
            keys: Arc::new(keys),
        });
    }
    sys::umount(&root)?;
    pool.thin_close("base")?;
    Ok(Image {
        thin,
        origin: thin,
        lineage: lineage(),
        files,
    })
}

/// A thin device whose every unit is written; not active.
pub fn make_raw_image(pool: &Pool) -> Result<Image> {
    let mut buffer = Buffer::new(1 << 20);
    let thin = pool.thin_new()?;
    pool.thin_open("rawbase", thin, RAW_SECTORS)?;
    let units = RAW_SECTORS as usize * 512 / UNIT;
    let keys: Vec<Key> = (0..units)
        .map(|unit| Key::new(BASE, RAW_FILE, 0, unit))
        .collect();
    let file = sys::open(sys::path("/dev/mapper/t-rawbase"), libc::O_WRONLY)?;
    write_all(&file, &keys, &mut buffer)?;
    drop(file);
    pool.thin_close("rawbase")?;
    let files = vec![FileImage {
        number: RAW_FILE,
        fixed: false,
        keys: Arc::new(keys),
    }];
    Ok(Image {
        thin,
        origin: thin,
        lineage: lineage(),
        files,
    })
}

fn lineage() -> Vec<bool> {
    let mut lineage = vec![false; AUTHORS];
    lineage[usize::from(BASE)] = true;
    lineage
}
