/* SPDX-License-Identifier: GPL-2.0 */
/* What bindgen reads to make rust/bindings_generated.rs. */

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/device-mapper.h>
#include <linux/dm-thin.h>
#include <linux/pagemap.h>
#include <linux/rcupdate.h>
#include <trace/events/drr.h>
#include "helpers.h"
