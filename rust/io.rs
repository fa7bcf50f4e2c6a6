// SPDX-License-Identifier: GPL-2.0

//! What a target may do with a bio besides sending it down: have it wait for another, write a full block in its place,
//! or read its data again.

pub mod block_lock;
pub mod full_block;
pub mod in_flight;
pub mod verify;
