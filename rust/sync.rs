// SPDX-License-Identifier: GPL-2.0

//! Data shared by several CPUs, and deferred work.

pub mod cells;
pub mod counters;
pub mod index;
pub mod irq_lock;
pub mod periodic_work;
pub mod rcu_arc;
pub mod scratch;
pub mod seq_cell;
pub mod striped_counter;
pub mod work_queue;
