//! Receiving and acknowledging.

use std::cell::Cell;
use std::io::{Error, Result};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::connection::Connection;
use crate::report::{print, rounded};
use crate::sending::all;
use crate::{Target, requests, workers};

/// Ends when nothing is left, or after `seconds`.
pub fn receive(target: &Target, group: &str, keep: bool, seconds: u64) -> Result<()> {
    let begin = Instant::now();
    let end = begin + Duration::from_secs(seconds);
    let messages = Rc::new(Cell::new(0_u64));
    let last = Rc::new(Cell::new(begin));
    workers::run(target.pin, || async {
        let mut lanes = JoinSet::new();
        for _ in 0..target.connections {
            let (target, group) = (target.clone(), group.to_owned());
            let (messages, last) = (Rc::clone(&messages), Rc::clone(&last));
            lanes.spawn_local(async move {
                let mut connection = Connection::open(target.server).await?;
                while Instant::now() < end {
                    let count = exchange(&mut connection, &target, &group, keep).await?;
                    if count == 0 {
                        break;
                    }
                    messages.set(messages.get() + count as u64);
                    last.set(Instant::now());
                }
                Result::Ok(())
            });
        }
        all(lanes).await
    })??;
    let seconds = (last.get() - begin).as_secs_f64();
    let per_second = if seconds > 0.0 { messages.get() as f64 / seconds } else { 0.0 };
    print(&json!({
        "command": "receive", "acknowledged": !keep, "connections": target.connections,
        "messages": messages.get(), "seconds": rounded(seconds), "messages_per_second": per_second.round(),
    }));
    Ok(())
}

/// One receive and its acknowledgement: how many messages came.
async fn exchange(connection: &mut Connection, target: &Target, group: &str, keep: bool) -> Result<usize> {
    let answer = connection.exchange(&requests::receive(target, group, 0)).await?;
    let handles = match answer.status {
        200 => requests::handles(answer.body),
        404 if answer.body.windows(15).any(|part| part == b"MessageNotExist") => return Ok(0),
        status => return Err(Error::other(format!("the server answers {status} to a receive"))),
    };
    if !keep {
        let answer = connection.exchange(&requests::acknowledge(target, group, &handles)).await?;
        if answer.status != 204 {
            let body = String::from_utf8_lossy(answer.body);
            return Err(Error::other(format!("an acknowledgement is answered {}: {body}", answer.status)));
        }
    }
    Ok(handles.len())
}
