// SPDX-License-Identifier: GPL-2.0

//! Receives events of block devices directly from the kernel: before udev's rules have run, and
//! also where no udev runs.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use drr_dm::Number;
use nix::errno::Errno;
use nix::sys::socket::{
    bind, recvmsg, setsockopt, socket, sockopt, AddressFamily, MsgFlags, NetlinkAddr, SockFlag,
    SockProtocol, SockType,
};

/// The multicast group of the kernel's events. Udev sends its own in another group.
const GROUP: u32 = 1;
/// Size of the receive buffer in bytes: enough for the events of many devices at once.
const BUFFER: usize = 1 << 20;

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Change,
    Remove,
}

/// An event of a block device.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    pub action: Action,
    pub number: Number,
    /// Sequence number of the disk.
    pub sequence: Option<u64>,
}

/// The result of [`Socket::receive`].
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// An event of a block device.
    Event(Event),
    /// Another message, to be ignored.
    Other,
    /// Some events were lost, as there were too many.
    Lost,
    /// There is no event for now.
    Nothing,
}

/// A socket that receives the kernel's events.
pub struct Socket(OwnedFd);

impl Socket {
    /// Opens the socket.
    pub fn new() -> nix::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        // Without CAP_NET_ADMIN the system's limit on the size applies.
        if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
            let _ = setsockopt(&socket, sockopt::RcvBuf, &BUFFER);
        }
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP))?;
        Ok(Self(socket))
    }

    /// Receives a message without waiting for one.
    pub fn receive(&self) -> nix::Result<Received> {
        let mut buffer = [0; 16384];
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::empty();
        let message = match recvmsg::<NetlinkAddr>(self.0.as_raw_fd(), &mut parts, None, flags) {
            Err(Errno::ENOBUFS) => return Ok(Received::Lost),
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Received::Nothing),
            message => message?,
        };
        // Privileged processes may send to this group, too. The kernel's messages have port id 0.
        if message.address.is_none_or(|sender| sender.pid() != 0) {
            return Ok(Received::Other);
        }
        let length = message.bytes;
        Ok(parse(&buffer[..length]).map_or(Received::Other, Received::Event))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Parses a message: `ACTION@PATH`, and then `NAME=value` for each property, each ended by a zero.
/// Returns `None` if it is no event of a block device that changes or is removed.
fn parse(message: &[u8]) -> Option<Event> {
    let (mut action, mut block) = (None, false);
    let (mut major, mut minor, mut sequence) = (None, None, None);
    for part in message.split(|byte| *byte == 0).skip(1) {
        let Some((name, value)) = std::str::from_utf8(part).ok()?.split_once('=') else {
            continue;
        };
        match name {
            "ACTION" => {
                action = match value {
                    "change" => Some(Action::Change),
                    "remove" => Some(Action::Remove),
                    _ => None,
                }
            }
            "SUBSYSTEM" => block = value == "block",
            "MAJOR" => major = value.parse().ok(),
            "MINOR" => minor = value.parse().ok(),
            "DISKSEQ" => sequence = value.parse().ok(),
            _ => {}
        }
    }
    block.then_some(Event {
        action: action?,
        number: (major?, minor?),
        sequence,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(action: &str, subsystem: &str) -> Vec<u8> {
        format!(
            "{action}@/devices/virtual/block/dm-3\0ACTION={action}\0SUBSYSTEM={subsystem}\0\
             MAJOR=253\0MINOR=3\0DEVNAME=dm-3\0DISKSEQ=17\0SEQNUM=1234\0"
        )
        .into_bytes()
    }

    #[test]
    fn events() {
        let event = parse(&message("change", "block")).expect("an event");
        assert_eq!(event.number, (253, 3));
        assert_eq!((event.action, event.sequence), (Action::Change, Some(17)));
        let event = parse(&message("remove", "block")).expect("an event");
        assert_eq!(event.action, Action::Remove);
    }

    #[test]
    fn others_are_none() {
        assert_eq!(parse(&message("add", "block")), None);
        assert_eq!(parse(&message("change", "net")), None);
        assert_eq!(parse(b"change@/x\0ACTION=change\0SUBSYSTEM=block\0"), None);
        assert_eq!(parse(b"\xff\0\xfe=\0"), None);
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"libudev\0\xfe\xed\xca\xfe"), None);
    }
}
