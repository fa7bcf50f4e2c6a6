// SPDX-License-Identifier: GPL-2.0

//! Moments, in jiffies.
//!
//! C header: [`include/linux/jiffies.h`](srctree/include/linux/jiffies.h)

use crate::bindings;

