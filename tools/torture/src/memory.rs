// SPDX-License-Identifier: GPL-2.0

//! Memory: pages leave the caches, move, or become scarce; and limits of I/O. Each says whether the kernel has it.

use std::fs;
use std::io::Result;
use std::path::Path;
use std::time::Duration;

use fastrand::Rng;

const GROUP: &str = "/sys/fs/cgroup/torture";

fn write(path: &str, value: &str) -> Result<bool> {
    if !Path::new(path).exists() {
        return Ok(false);
    }
    match fs::write(path, value) {
        // less was reclaimed than asked for
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok(true),
        result => result.map(|()| true),
    }
}

/// Moves this process to a memory cgroup of its own, where there are such.
pub fn enter_group() -> Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    if !root.join("cgroup.procs").exists() {
        crate::sys::mount(Path::new("none"), root, "cgroup2", "")?;
    }
    let control = "/sys/fs/cgroup/cgroup.subtree_control";
    write(control, "+io").ok(); // `throttle` tells where it isn't there
    if write(control, "+memory").is_ok() {
        fs::create_dir_all(GROUP)?;
        fs::write(format!("{GROUP}/cgroup.procs"), "0")?;
    }
    Ok(())
}

/// Drops clean pages, of all file systems.
pub fn drop_caches() -> Result<bool> {
    write("/proc/sys/vm/drop_caches", "1")
}

/// Has the kernel reclaim some of this process's pages.
pub fn reclaim(rng: &mut Rng) -> Result<bool> {
    write(
        &format!("{GROUP}/memory.reclaim"),
        &format!("{}M", rng.u32(4..64)),
    )
}

/// Limits this process's memory, or lifts the limit.
pub fn squeeze(rng: &mut Rng) -> Result<bool> {
    let limit = match rng.u8(..3) {
        0 => "max".to_owned(),
        _ => format!("{}M", rng.u32(120..300)),
    };
    write(&format!("{GROUP}/memory.high"), &limit)
}

/// Limits this process's I/O to a disk for a moment.
pub fn throttle(disk: String, rng: &mut Rng) -> Result<bool> {
    let file = format!("{GROUP}/io.max");
    let limit = ["rbps", "wbps", "riops", "wiops"][rng.usize(..4)];
    let value = match limit.ends_with("bps") {
        true => rng.u32(1..16) << 20,
        false => rng.u32(20..500),
    };
    let there = write(&file, &format!("{disk} {limit}={value}"))?;
    std::thread::sleep(Duration::from_millis(rng.u64(100..1000)));
    write(&file, &format!("{disk} {limit}=max"))?;
    Ok(there)
}

/// Lifts the limit of memory.
pub fn relax() -> Result<bool> {
    write(&format!("{GROUP}/memory.high"), "max")
}

/// Compacts memory: pages migrate.
pub fn compact() -> Result<bool> {
    write("/proc/sys/vm/compact_memory", "1")
}

/// Takes huge pages for a moment, for which others have to move.
pub fn huge_pages(rng: &mut Rng) -> Result<bool> {
    let path = "/proc/sys/vm/nr_hugepages";
    let taken = write(path, &rng.u32(8..64).to_string())?;
    write(path, "0").map(|_| taken)
}
