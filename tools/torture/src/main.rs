// SPDX-License-Identifier: GPL-2.0

//! Loads siblings that share a thin pool through drr, and checks every byte they read.
//!
//! Runs as root in a guest that may be ruined. See Documentation/testing/torture.rst.

mod config;
mod content;
mod control;
mod diagnose;
mod dm;
mod kmsg;
mod layer;
mod memory;
mod neighbour;
mod ops;
mod pool;
mod run;
mod shadow;
mod sys;
mod tables;
mod uring;
mod worker;

use std::fs;
use std::io::{Read, Result, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::json;

use config::{Config, Options};
use content::PAGE;
use control::{Authors, Controller};
use layer::Slot;
use neighbour::Neighbour;
use pool::{Counters, Pool};
use run::Run;
use worker::Worker;

/// A round: everything is made, used, and taken down.
fn round(run: &Run, config: &Config, rng: &mut Rng, until: Instant) -> Result<Counters> {
    let pool = Pool::new(config)?;
    let images = [
        layer::make_image(&pool, config, rng)?,
        layer::make_raw_image(&pool)?,
    ];
    let mut slots: Vec<Slot> = (0..config.containers)
        .map(|index| Slot::new(format!("f{index}"), false))
        .collect();
    slots.extend((0..config.raws).map(|index| Slot::new(format!("r{index}"), true)));
    let authors = Authors::new();
    let mut controller = Controller {
        run,
        config,
        pool: &pool,
        slots: &slots,
        images,
        authors: &authors,
        rng: rng.fork(),
        pace: Duration::from_millis(80),
        number: 0,
    };
    controller.fill()?;
    let mut neighbour = Neighbour::new(config, &pool, rng.fork())?;
    run.stop.store(false, Relaxed);
    thread::scope(|scope| {
        let mut number = 1;
        for slot in &slots {
            for _ in 0..if slot.raw { 1 } else { config.threads } {
                let worker = Worker::new(run, config, slot, number, rng.u64(..));
                scope.spawn(move || worker.work());
                number += 1;
            }
        }
        scope.spawn(|| {
            while !run.stopping() {
                if let Err(error) = pool.keep_space() {
                    run.fail(format!("grow pool: {error}"));
                }
                thread::sleep(Duration::from_millis(100));
            }
        });
        scope.spawn(|| neighbour.work(run));
        controller.work(until);
    });
    if run.has_failed() {
        return pool.counters();
    }
    memory::relax()?;
    neighbour.close()?;
    controller.empty()?;
    finish(run, config, &mut controller)?;
    drop(controller);
    let counters = pool.counters()?;
    pool.close()?;
    Ok(counters)
}

/// With nothing mounted nothing may be remembered.
fn finish(run: &Run, config: &Config, controller: &mut Controller<'_>) -> Result<()> {
    let pool = controller.pool;
    // status is a device's, so one is made that nobody uses
    let image = &controller.images[0];
    pool.thin_open("last", image.thin, layer::FS_SECTORS)?;
    pool.top_open("last", layer::FS_SECTORS, &[])?;
    let remembered = pool.remembered()?;
    pool.top_close("last")?;
    pool.thin_close("last")?;
    if remembered != (0, 0) {
        let (pages, records) = remembered;
        run.fail(format!(
            "after the round ({config}): tracked_pages={pages} records={records}"
        ));
    }
    controller.check();
    Ok(())
}

/// Ends the run when an operation does not end.
fn watch(run: &Run, patience: u64) {
    let hanging = run.hanging(patience);
    if hanging.is_empty() {
        return;
    }
    let _ = fs::write("/proc/sysrq-trigger", "w");
    run.fail(format!("hanging: {}", hanging.join(", ")));
}

struct Totals {
    counters: Counters,
    rounds: Vec<String>,
}

fn write_result(options: &Options, run: &Run, totals: &Totals) -> Result<()> {
    let counts = run.counts();
    let operations: serde_json::Map<String, serde_json::Value> = counts
        .iter()
        .map(|(name, count)| {
            let mut value = json!({ "done": count.done, "seconds": count.time.as_secs_f64() });
            for (key, number) in [("unsupported", count.unsupported), ("failed", count.failed)] {
                if number > 0 {
                    value[key] = json!(number);
                }
            }
            ((*name).to_owned(), value)
        })
        .collect();
    let counters = &totals.counters;
    let sectors = (PAGE / 512) as u64;
    let verified = run.verified.load(Relaxed) / PAGE as u64;
    let served = counters.of("hit_sectors") / sectors;
    let wrong = run.wrong.load(Relaxed) + counters.of("mismatches");
    let result = json!({
        "verified": verified,
        "served_by_drr": served,
        "wrong": wrong,
        "seed": options.seed,
        "seconds": run.start.elapsed().as_secs(),
        "kernel": options.kernel,
        "failures": run.reports(),
        "rounds": totals.rounds,
        "drr": counters.all(),
        "operations": operations,
    });
    fs::write(&options.output, format!("{result:#}\n"))?;
    println!("pages verified: {verified}, served by drr: {served}, wrong: {wrong}");
    let (compared, disk) = (
        counters.of("compared_pages"),
        (counters.of("read_sectors") - counters.of("hit_sectors")) / sectors,
    );
    println!("pages from the disk: {disk}, compared with an earlier read of the same: {compared}");
    // Those that aren't shared are among these, so that a share of 5 % of all is one of more.
    if options.seconds >= 60
        && compared * 20 < disk
        && !run.has_failed()
        && options.target == config::Target::Drr
    {
        run.fail(format!(
            "only {compared} of {disk} pages from the disk were compared"
        ));
    }
    Ok(())
}

fn rounds(options: &Options, run: &Run) -> Result<Totals> {
    let mut rng = Rng::with_seed(options.seed);
    let mut totals = Totals {
        counters: Counters::default(),
        rounds: Vec::new(),
    };
    let end = run.start + Duration::from_secs(options.seconds);
    let mut number = 0;
    while Instant::now() < end && !run.has_failed() {
        let mut rng = rng.fork();
        let config = Config::of_round(&mut rng, options, number);
        run.say(format_args!("round {number}: {config}"));
        let length = Duration::from_secs(options.round_seconds);
        let before = run.verified.load(Relaxed);
        let counters = round(run, &config, &mut rng, end.min(Instant::now() + length))?;
        totals.counters.add(&counters);
        let verified = (run.verified.load(Relaxed) - before) / PAGE as u64;
        let share = 100 * counters.of("hit_sectors") / counters.of("read_sectors").max(1);
        let text = format!(
            "{config}: {verified} pages verified, {} served by drr ({share} % of its reads)",
            counters.of("hit_sectors") / 8
        );
        run.say(format_args!("round {number} done: {text}"));
        totals.rounds.push(text);
        number += 1;
    }
    Ok(totals)
}

/// The whole run; its exit status.
fn torture(options: &Options) -> i32 {
    let run = Run::new();
    sys::report_sigbus();
    if let Err(error) = memory::enter_group() {
        run.say(format_args!("no memory cgroup: {error}"));
    }
    thread::scope(|scope| {
        let (done, waiting) = std::sync::mpsc::channel::<()>();
        let watched = &run;
        scope.spawn(move || {
            while waiting.recv_timeout(Duration::from_secs(1)).is_err() {
                watch(watched, options.patience);
                if watched.has_failed() {
                    // whoever hangs must not keep the rest from ending
                    if waiting.recv_timeout(Duration::from_secs(60)).is_err() {
                        watched.say("threads don't end");
                        sys::exit_now(1);
                    }
                    break;
                }
            }
        });
        let result = rounds(options, &run);
        let _ = done.send(());
        let totals = result.unwrap_or_else(|error| {
            run.fail(error.to_string());
            Totals {
                counters: Counters::default(),
                rounds: Vec::new(),
            }
        });
        if let Err(error) = write_result(options, &run, &totals) {
            run.fail(format!("{}: {error}", options.output));
        }
    });
    i32::from(run.has_failed())
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "tables") {
        std::process::exit(tables::run(&words[1..]));
    }
    let options = match Options::parse(words.into_iter()) {
        Ok(options) => options,
        Err(text) => {
            eprintln!("{text}");
            std::process::exit(2);
        }
    };
    // The status comes through a pipe: a process with a thread that hangs can't be waited for.
    let (mut reader, mut writer) = sys::pipe().expect("a pipe");
    if sys::fork().expect("a process") == 0 {
        drop(reader);
        let status = torture(&options);
        let _ = writer.write_all(&[status as u8]);
        sys::exit_now(status);
    }
    drop(writer);
    let mut status = [3];
    let _ = reader.read_exact(&mut status);
    if status[0] != 0 {
        println!("torture failed; to repeat it: SEED={}", options.seed);
    }
    std::process::exit(status[0].into());
}
