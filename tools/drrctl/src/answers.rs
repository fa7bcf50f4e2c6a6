// SPDX-License-Identifier: GPL-2.0

//! Parses the kernel's texts: tables, statuses, and answers to messages.

pub mod status;
pub mod table;
pub mod text;
