//! Publishing: as much as goes, one at a time, and a given number.

use std::cell::{Cell, RefCell};
use std::fs::OpenOptions;
use std::io::{Error, Result};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use serde_json::json;
use tokio::task::JoinSet;

use crate::connection::Connection;
use crate::report::{histogram, median, percentiles_us, print, rounded};
use crate::{Target, bare, requests, workers};

const WARM_UP: Duration = Duration::from_millis(500);
const SINGLE_TIME: Duration = Duration::from_secs(2);
/// File and block of the raw writes.
const RAW_FILE_BYTES: usize = 16 * 1024 * 1024;
const RAW_BLOCK_BYTES: usize = 4096;
const RAW_TIME: Duration = Duration::from_secs(1);

/// What one turn of load gave.
struct Turn {
    per_second: f64,
    latencies: Histogram<u64>,
}

pub fn publish(
    target: &Target,
    body: usize,
    seconds: u64,
    rounds: usize,
    bare_core: Option<usize>,
) -> Result<()> {
    let bare = bare::start(bare_core)?;
    let request: Rc<[u8]> = requests::publish(target, &"x".repeat(body), None).into();
    let duration = Duration::from_secs(seconds);
    let (mut bare_rates, mut rates, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    let mut latencies = histogram();
    for _ in 0..rounds {
        let before = turn(target, bare, &request, duration)?;
        let ours = turn(target, target.server, &request, duration)?;
        let after = turn(target, bare, &request, duration)?;
        let around = f64::midpoint(before.per_second, after.per_second);
        bare_rates.push(around);
        rates.push(ours.per_second);
        shares.push(ours.per_second / around);
        latencies.add(&ours.latencies).expect("the same bounds");
    }
    print(&json!({
        "command": "publish", "connections": target.connections, "body": body,
        "requests_per_second": median(&rates).round(), "bare_requests_per_second": median(&bare_rates).round(),
        "share": rounded(median(&shares)), "shares": shares.into_iter().map(rounded).collect::<Vec<_>>(),
        "latency_us": percentiles_us(&latencies),
    }));
    Ok(())
}

pub fn single(target: &Target, body: usize, rounds: usize, directory: &Path) -> Result<()> {
    let target = Target { connections: 1, ..target.clone() };
    let request: Rc<[u8]> = requests::publish(&target, &"x".repeat(body), None).into();
    let (mut raws, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let before = raw_flush_p50_us(directory)?;
        let turn = turn(&target, target.server, &request, SINGLE_TIME)?;
        let raw = f64::midpoint(before, raw_flush_p50_us(directory)?);
        let p50 = turn.latencies.value_at_quantile(0.5) as f64 / 1000.0;
        raws.push(raw);
        ours.push(p50);
        ratios.push(p50 / raw);
    }
    print(&json!({
        "command": "single", "body": body, "p50_us": rounded(median(&ours)),
        "raw_write_and_flush_p50_us": rounded(median(&raws)), "ratio": rounded(median(&ratios)),
        "ratios": ratios.into_iter().map(rounded).collect::<Vec<_>>(),
    }));
    Ok(())
}

pub fn fill(target: &Target, body: usize, count: u64, delay_seconds: Option<u64>) -> Result<()> {
    let due = delay_seconds.map(|delay| milliseconds_now() + delay * 1000);
    let body = "x".repeat(body);
    let begin = Instant::now();
    workers::run(target.pin, || async {
        let sent = Rc::new(Cell::new(0));
        let mut lanes = JoinSet::new();
        for _ in 0..target.connections {
            let (sent, server) = (Rc::clone(&sent), target.server);
            let request = requests::publish(target, &body, due);
            lanes.spawn_local(async move {
                let mut connection = Connection::open(server).await?;
                while sent.get() < count {
                    sent.set(sent.get() + 1);
                    expect_created(connection.exchange(&request).await?.status)?;
                }
                Result::Ok(())
            });
        }
        all(lanes).await
    })??;
    let seconds = begin.elapsed().as_secs_f64();
    print(&json!({
        "command": "fill", "messages": count, "delay_seconds": delay_seconds, "seconds": rounded(seconds),
        "requests_per_second": (count as f64 / seconds).round(),
    }));
    Ok(())
}

/// Every connection sends one request after the other, for as long as is said after a short warm-up.
fn turn(target: &Target, server: SocketAddr, request: &Rc<[u8]>, duration: Duration) -> Result<Turn> {
    workers::run(target.pin, || async {
        let latencies = Rc::new(RefCell::new(histogram()));
        let begin = Instant::now() + WARM_UP;
        let mut lanes = JoinSet::new();
        for _ in 0..target.connections {
            let (request, latencies) = (Rc::clone(request), Rc::clone(&latencies));
            lanes.spawn_local(async move {
                let mut connection = Connection::open(server).await?;
                let mut sent = Instant::now();
                while sent < begin + duration {
                    expect_created(connection.exchange(&request).await?.status)?;
                    let answered = Instant::now();
                    if sent >= begin {
                        latencies.borrow_mut().saturating_record((answered - sent).as_nanos() as u64);
                    }
                    sent = answered;
                }
                Result::Ok(())
            });
        }
        all(lanes).await?;
        let latencies = latencies.borrow().clone();
        Ok(Turn { per_second: latencies.len() as f64 / begin.elapsed().as_secs_f64(), latencies })
    })?
}

pub async fn all(mut lanes: JoinSet<Result<()>>) -> Result<()> {
    while let Some(lane) = lanes.join_next().await {
        lane.map_err(Error::other)??;
    }
    Ok(())
}

pub fn expect_created(status: u16) -> Result<()> {
    if status == 201 {
        Ok(())
    } else {
        Err(Error::other(format!("the server answers {status} to a publish")))
    }
}

pub fn milliseconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Median of one block written and flushed, over and over, into blocks that were written before.
fn raw_flush_p50_us(directory: &Path) -> Result<f64> {
    let path = directory.join(format!("turbopump-raw-{}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    let outcome = raw_flushes(&file);
    std::fs::remove_file(&path)?;
    Ok(outcome?.value_at_quantile(0.5) as f64 / 1000.0)
}

fn raw_flushes(file: &std::fs::File) -> Result<Histogram<u64>> {
    file.write_all_at(&vec![1; RAW_FILE_BYTES], 0)?;
    file.sync_all()?;
    let block = [2; RAW_BLOCK_BYTES];
    let mut latencies = histogram();
    let begin = Instant::now();
    let mut position = 0;
    while begin.elapsed() < RAW_TIME {
        let start = Instant::now();
        file.write_all_at(&block, position as u64)?;
        file.sync_data()?;
        latencies.saturating_record(start.elapsed().as_nanos() as u64);
        position = (position + RAW_BLOCK_BYTES) % RAW_FILE_BYTES;
    }
    Ok(latencies)
}
