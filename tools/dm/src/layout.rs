// SPDX-License-Identifier: GPL-2.0

//! The structures of linux/dm-ioctl.h, and access to the fields of requests and answers.
//!
//! Requests and answers are kept as bytes; the structures only give sizes and the offsets of
//! fields. Beyond the end of the bytes, numbers read as zero and texts as empty, so that no answer
//! makes a caller panic.

/// `struct dm_ioctl`, at the beginning of each request and each answer.
#[repr(C)]
pub struct Header {
    pub version: [u32; 3],
    pub data_size: u32,
    pub data_start: u32,
    pub target_count: u32,
    pub open_count: i32,
    pub flags: u32,
    pub event_nr: u32,
    pub padding: u32,
    pub dev: u64,
    pub name: [u8; 128],
    pub uuid: [u8; 129],
    pub data: [u8; 7],
}

/// `struct dm_target_spec`, before the arguments of a line of a table.
#[repr(C)]
pub struct TargetSpec {
    pub sector_start: u64,
    pub length: u64,
    pub status: i32,
    pub next: u32,
    pub target_type: [u8; 16],
}

/// `struct dm_name_list`, an entry of the list of devices: its name follows.
#[repr(C)]
pub struct NameList {
    pub dev: u64,
    pub next: u32,
}

/// Offset of the name in a `struct dm_name_list`, in bytes; less than the size of the structure,
/// which ends with padding.
pub const NAME_LIST_NAME: usize = 12;

/// `struct dm_target_versions`, an entry of the list of targets: its name follows.
#[repr(C)]
pub struct TargetVersions {
    pub next: u32,
    pub version: [u32; 3],
}

/// Returns the `u32` at byte offset `at`.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let part = bytes.get(at..).and_then(<[u8]>::first_chunk);
    u32::from_ne_bytes(part.copied().unwrap_or_default())
}

/// Returns the `u64` at byte offset `at`.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let part = bytes.get(at..).and_then(<[u8]>::first_chunk);
    u64::from_ne_bytes(part.copied().unwrap_or_default())
}

/// Returns the bytes from offset `at` on, up to the first zero.
pub fn bytes_at(bytes: &[u8], at: usize) -> &[u8] {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Returns the text from byte offset `at` on, up to the first zero.
pub fn text_at(bytes: &[u8], at: usize) -> String {
    String::from_utf8_lossy(bytes_at(bytes, at)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn structures_are_the_kernels() {
        assert_eq!(size_of::<Header>(), 312);
        assert_eq!(offset_of!(Header, dev), 40);
        assert_eq!(offset_of!(Header, uuid), 176);
        assert_eq!(size_of::<TargetSpec>(), 40);
        assert_eq!(offset_of!(TargetSpec, target_type), 24);
        assert_eq!(offset_of!(NameList, next) + 4, NAME_LIST_NAME);
        assert_eq!(size_of::<TargetVersions>(), 16);
    }

    #[test]
    fn what_is_beyond_the_end_is_nothing() {
        let bytes = [1, 0, 0, 0, 0, 0, 0, 0, b'a', b'b', 0, b'c'];
        assert_eq!(u64_at(&bytes, 0), 1u64.to_le());
        assert_eq!((u64_at(&bytes, 5), u32_at(&bytes, 9)), (0, 0));
        assert_eq!(
            (text_at(&bytes, 8), text_at(&bytes, 11)),
            ("ab".into(), "c".into())
        );
        for at in [12, 13, usize::MAX] {
            assert_eq!((u64_at(&bytes, at), u32_at(&bytes, at)), (0, 0));
            assert_eq!(bytes_at(&bytes, at), b"");
        }
    }
}
