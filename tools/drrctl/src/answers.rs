// SPDX-License-Identifier: GPL-2.0

//! The texts that the kernel answers with, taken apart: tables, statuses, and answers to messages.

pub mod status;
pub mod table;
pub mod text;
