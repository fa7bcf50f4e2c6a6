// SPDX-License-Identifier: GPL-2.0

//! Ways to handle a bio other than sending it down: parking it until another I/O ends, writing a
//! full block instead, or verifying its data by a second read.

pub mod block_lock;
pub mod end_later;
pub mod full_block;
pub mod in_flight;
pub mod parked;
pub mod verify;
