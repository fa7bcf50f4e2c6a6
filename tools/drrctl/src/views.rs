// SPDX-License-Identifier: GPL-2.0

//! What a user sees: texts, numbers with their units, JSON.

pub mod histogram;
pub mod output;
pub mod show;
pub mod units;
