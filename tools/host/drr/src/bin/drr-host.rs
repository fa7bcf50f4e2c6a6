// SPDX-License-Identifier: GPL-2.0

//! The access table in user space, by hand.
//!
//! ```text
//! drr-host stress [SECONDS [SEED [THREADS]]]
//! drr-host scale [TENTHS [MOST]]    tenths of a second for a measurement, of which there are 12 a
//!                                   row; no rows of more than MOST records; then as below
//! drr-host copying                  what it costs to prove a page
//! ```

#![forbid(unsafe_code)]

#[cfg(loom)]
fn main() {}

#[cfg(not(loom))]
fn main() {
    use std::{env, process, time::Duration};

    let words: Vec<String> = env::args().skip(1).collect();
    let number = |at: usize, default: u64| {
        words.get(at).map_or(default, |word| {
            word.parse().unwrap_or_else(|_| {
                eprintln!("drr-host: {word} is no number : see the head of drr-host.rs");
                process::exit(2)
            })
        })
    };
    match words.first().map(String::as_str) {
        Some("stress") => {
            let (seed, threads) = (number(2, 1), number(3, 64));
            println!("seed {seed}, {threads} threads");
            let time = Duration::from_secs(number(1, 10));
            let figures = drr::stress::run(threads, time, seed, true);
            println!("{figures:?}");
            process::exit(i32::from(!figures.right()));
        }
        Some("scale") => {
            let time = Duration::from_millis(number(1, 10) * 100);
            drr::scale::run(time, number(2, u64::MAX));
            drr::copying::run();
        }
        Some("copying") => drr::copying::run(),
        _ => {
            eprintln!("drr-host: nothing to do : say stress, scale or copying");
            process::exit(2)
        }
    }
}
