// SPDX-License-Identifier: GPL-2.0

//! The kernel's events of block devices, from the kernel itself: not delayed by udev's rules, and
//! there where no udev runs.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use drr_dm::Number;
use nix::errno::Errno;
use nix::sys::socket::{
    bind, recvmsg, setsockopt, socket, sockopt, AddressFamily, MsgFlags, NetlinkAddr, SockFlag,
    SockProtocol, SockType,
};

/// Events of the kernel; udev repeats them in another group.
const GROUP: u32 = 1;
/// Many devices may come at once.
const BUFFER: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Change,
    Remove,
}

/// Something happened to a block device.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    pub action: Action,
    pub number: Number,
    pub sequence: Option<u64>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    Event(Event),
    /// Of no interest.
    Other,
    /// There were too many: some are lost.
    Lost,
    /// No more for now.
    Nothing,
}

pub struct Socket(OwnedFd);

impl Socket {
    pub fn new() -> nix::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        // the limit holds for those without the right to exceed it
        if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
            let _ = setsockopt(&socket, sockopt::RcvBuf, &BUFFER);
        }
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP))?;
        Ok(Self(socket))
    }

    pub fn receive(&self) -> nix::Result<Received> {
        let mut buffer = [0; 16384];
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::empty();
        let message = match recvmsg::<NetlinkAddr>(self.0.as_raw_fd(), &mut parts, None, flags) {
            Err(Errno::ENOBUFS) => return Ok(Received::Lost),
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Received::Nothing),
            message => message?,
        };
        // anybody with the right may send here; the kernel is 0
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

/// `ACTION@PATH`, and then `NAME=value` of everything, each with a zero behind it.
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
