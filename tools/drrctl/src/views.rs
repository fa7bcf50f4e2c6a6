// SPDX-License-Identifier: GPL-2.0

//! Output for users: texts, numbers with their units, and JSON.

pub mod histogram;
pub mod output;
pub mod show;
pub mod units;
