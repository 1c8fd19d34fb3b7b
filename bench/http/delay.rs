//! How late delayed messages arrive.

use std::cell::RefCell;
use std::io::{Error, Result};
use std::rc::Rc;

use serde_json::json;
use tokio::task::JoinSet;

use crate::connection::Connection;
use crate::report::{histogram, percentiles_us, print};
use crate::sending::{all, expect_created, milliseconds_now};
use crate::{Target, requests, workers};

/// The first message is due this much after the start: time to publish them all.
const LEAD_MILLISECONDS: u64 = 5_000;
const WAIT_SECONDS: u64 = 30;
/// Receivers: one is always waiting while another acknowledges.
const RECEIVERS: usize = 2;

pub fn delay(target: &Target, group: &str, count: u64, spacing: u64) -> Result<()> {
    let lateness = Rc::new(RefCell::new(histogram()));
    workers::run(target.pin, || async {
        let first = milliseconds_now() + LEAD_MILLISECONDS;
        let mut connection = Connection::open(target.server).await?;
        for number in 0..count {
            let due = first + number * spacing;
            let request = requests::publish(target, &due.to_string(), Some(due));
            expect_created(connection.exchange(&request).await?.status)?;
        }
        if milliseconds_now() >= first {
            return Err(Error::other(
                "the first message was due before the last was published: lower --count",
            ));
        }
        let mut lanes = JoinSet::new();
        for _ in 0..RECEIVERS {
            let (target, group, lateness) = (target.clone(), group.to_owned(), Rc::clone(&lateness));
            lanes.spawn_local(async move { receive(&target, &group, count, &lateness).await });
        }
        all(lanes).await
    })??;
    let lateness = lateness.borrow();
    print(&json!({
        "command": "delay", "messages": lateness.len(), "spacing_ms": spacing,
        "lateness_us": percentiles_us(&lateness),
    }));
    Ok(())
}

/// Notes how much after its delivery time each message came; an early one is an error.
async fn receive(
    target: &Target,
    group: &str,
    count: u64,
    lateness: &RefCell<hdrhistogram::Histogram<u64>>,
) -> Result<()> {
    let mut connection = Connection::open(target.server).await?;
    while lateness.borrow().len() < count {
        let answer = connection.exchange(&requests::receive(target, group, WAIT_SECONDS)).await?;
        let now = milliseconds_now();
        if answer.status != 200 {
            // The other receiver had the last one.
            break;
        }
        for body in requests::bodies(answer.body) {
            let due: u64 = body.parse().map_err(Error::other)?;
            let late = now.checked_sub(due).ok_or_else(|| Error::other("a message came before its time"))?;
            lateness.borrow_mut().saturating_record(late * 1_000_000);
        }
        let handles = requests::handles(answer.body);
        connection.exchange(&requests::acknowledge(target, group, &handles)).await?;
    }
    Ok(())
}
