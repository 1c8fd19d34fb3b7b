//! What tools show of a broker (`broker/.../processor/AdminBrokerProcessor.java`, `prepareRuntimeInfo`): texts by their names.
//! What has no meaning here is left out, except where tools end without it.

use std::rc::Rc;

use crate::broker::LogStanding;
use crate::protocol::remoting::body::write_table;
use crate::server::remoting::answer::{Answer, Asker};
use crate::server::remoting::connection::Remoting;
use crate::server::remoting::requests::Refused;
use crate::server::remoting::signed::Sender;
use crate::types::Account;

/// Queues of threads, which there are none of.
const THREAD_POOLS: [&str; 5] = ["send", "pull", "query", "ack", "litePull"];

impl Remoting {
    /// Begins to answer with them: how full the disk is has to be asked.
    pub(super) async fn runtime_info(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
    ) -> Result<Option<Answer>, Refused> {
        self.check_admin(sender, "read the broker's counters")?;
        let remoting = self.clone();
        let told = async move {
            let standing = remoting.connections.broker.log_standing().await.map_err(Refused::failed)?;
            let table = remoting.runtime_table(&standing);
            let entries = table.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            Ok(Answer::body(|output| write_table(entries, output)))
        };
        self.begin(asker, told).await
    }

    fn runtime_table(&self, standing: &LogStanding) -> Vec<(String, String)> {
        let mut table = self.condition(standing);
        table.extend(self.counts());
        for pool in THREAD_POOLS {
            table.push((format!("{pool}ThreadPoolQueueSize"), "0".to_owned()));
            table.push((format!("{pool}ThreadPoolQueueCapacity"), "0".to_owned()));
            table.push((format!("{pool}ThreadPoolQueueHeadWaitTimeMills"), "0".to_owned()));
        }
        table.sort();
        table
    }

    /// What the shard is, and how it is.
    fn condition(&self, standing: &LogStanding) -> Vec<(String, String)> {
        let broker = &self.connections.broker;
        let (log, boot) = (broker.log(), self.port().boot);
        let now = self.connections.clock.now();
        let watermarks = log.watermarks();
        let unflushed = watermarks.appended_end().0 - watermarks.durable_end().0;
        let uptime_ms = now.0.saturating_sub(boot.0);
        let entries = [
            ("brokerVersionDesc", format!("turbopump {}", broker.options().version)),
            ("brokerVersion", crate::protocol::remoting::BROKER_VERSION.to_string()),
            ("brokerActive", broker.condition().is_empty().to_string()),
            ("bootTimestamp", boot.to_string()),
            ("startAcceptSendRequestTimeStamp", boot.to_string()),
            ("runtime", uptime_text(uptime_ms)),
            ("commitLogMinOffset", log.first_position().to_string()),
            ("commitLogMaxOffset", watermarks.durable_end().to_string()),
            ("dispatchBehindBytes", "0".to_owned()),
            ("remainHowManyDataToFlush", unflushed.to_string()),
            ("remainHowManyDataToCommit", "0".to_owned()),
            ("remainTransientStoreBufferNumbs", "0".to_owned()),
            ("pageCacheLockTimeMills", "0".to_owned()),
            // While there is no message: tools show this as no time at all.
            ("earliestMessageTimeStamp", standing.first.unwrap_or(now).to_string()),
            ("commitLogDiskRatio", format!("{:.4}", standing.disk_ratio())),
            ("consumeQueueDiskRatio", format!("{:.4}", standing.disk_ratio())),
            ("commitLogDirCapacity", capacity_text(standing.space.total, standing.space.available)),
            ("EndTransactionQueueSize", "0".to_owned()),
            ("EndTransactionThreadPoolQueueCapacity", "0".to_owned()),
            ("timerReadBehind", "0".to_owned()),
            ("timerOffsetBehind", "0".to_owned()),
            ("timerCongestNum", "0".to_owned()),
            ("timerEnqueueTps", "0.0".to_owned()),
            ("timerDequeueTps", "0.0".to_owned()),
            ("unreadAnswerBytes", self.connections.memory.budget(Account::Answers).bytes().to_string()),
        ];
        entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn counts(&self) -> Vec<(String, String)> {
        let metrics = &self.connections.metrics;
        let stored = metrics.messages_produced.get();
        let given = metrics.messages_fetched.get() + metrics.messages_received.get();
        let rates = self.connections.broker.rates_per_second();
        let [put, _, get, _] = rates.map(|stretches| stretches.map(|rate| format!("{rate:.6}")).join(" "));
        let none = "0.0 0.0 0.0".to_owned();
        let average = metrics.bytes_produced.get().checked_div(stored).unwrap_or(0);
        let entries = [
            ("putTps", put),
            // 5.x reads the first, 4.9 the second.
            ("getTransferredTps", get.clone()),
            ("getTransferedTps", get.clone()),
            ("getTotalTps", get.clone()),
            ("getFoundTps", get),
            ("getMissTps", none),
            ("msgPutTotalTodayNow", stored.to_string()),
            ("msgPutTotalTodayMorning", "0".to_owned()),
            ("msgPutTotalYesterdayMorning", "0".to_owned()),
            ("msgGetTotalTodayNow", given.to_string()),
            ("msgGetTotalTodayMorning", "0".to_owned()),
            ("msgGetTotalYesterdayMorning", "0".to_owned()),
            ("putMessageTimesTotal", stored.to_string()),
            ("putMessageFailedTimes", metrics.produce_refused.get().to_string()),
            ("putMessageSizeTotal", metrics.bytes_produced.get().to_string()),
            ("putMessageAverageSize", average.to_string()),
            // What takes how long is not told. The exporter ends without these, and complains of an empty one.
            ("putMessageEntireTimeMax", "0".to_owned()),
            ("getMessageEntireTimeMax", "0".to_owned()),
            ("putMessageDistributeTime", "[<=0ms]:0".to_owned()),
            ("dispatchMaxBuffer", "0".to_owned()),
        ];
        entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// As the exporter of RocketMQ's counters takes it apart.
fn capacity_text(total: u64, available: u64) -> String {
    format!("Total : {}, Free : {}.", bytes_text(total), bytes_text(available))
}

fn bytes_text(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = (bytes.max(1).ilog2() / 10) as usize;
    format!("{:.1} {}", bytes as f64 / (1_u64 << (10 * unit)) as f64, units[unit])
}

/// As RocketMQ writes it.
fn uptime_text(milliseconds: u64) -> String {
    let seconds = milliseconds / 1_000;
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    format!("[ {days} days, {hours} hours, {} minutes, {} seconds ]", seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_told_in_units() {
        let text = capacity_text(3 << 29, 0);
        assert_eq!(text, "Total : 1.5 GiB, Free : 0.0 B.");
        // As the exporter reads it.
        let words: Vec<_> = text.split(' ').collect();
        assert_eq!((words[2], words[3], words[6], words[7]), ("1.5", "GiB,", "0.0", "B."));
        assert_eq!(bytes_text(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn an_uptime_is_told_in_days_and_their_parts() {
        let milliseconds = ((2 * 24 + 3) * 3_600 + 4 * 60 + 5) * 1_000 + 6;
        assert_eq!(uptime_text(milliseconds), "[ 2 days, 3 hours, 4 minutes, 5 seconds ]");
    }
}
