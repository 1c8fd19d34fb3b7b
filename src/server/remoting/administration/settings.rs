//! How a broker is set up, by RocketMQ's names (`common/.../BrokerConfig.java`, `store/.../config/MessageStoreConfig.java`): as far as
//! there is something here that they mean. It is given at the start, shown to tools, and
//! changed by them as far as it can be.

use std::rc::Rc;

use crate::api::{Request, SettingChange};
use crate::limits;
use crate::protocol::remoting::ResponseCode;
use crate::protocol::remoting::body::{DataVersion, write_topics_at};
use crate::protocol::remoting::broker_conf::{Fate, Property, Said, properties};
use crate::server::remoting::answer::{Answer, Asker};
use crate::server::remoting::connection::Remoting;
use crate::server::remoting::requests::Refused;
use crate::server::remoting::signed::Sender;
use crate::types::Level;

const HOUR_SECONDS: u64 = 3600;

impl Remoting {
    pub(super) fn settings(&self, sender: &Sender) -> Result<Answer, Refused> {
        self.check_admin(sender, "read the broker's settings")?;
        let mut answer = Answer::body(|output| {
            for (name, value) in self.settings_table() {
                output.extend_from_slice(format!("{name}={value}\n").as_bytes());
            }
        });
        let mut version = Vec::new();
        DataVersion { counter: 0, state: 0, timestamp: self.port().boot.0 as i64 }.write(&mut version);
        answer.fields = vec![("version", String::from_utf8_lossy(&version).into_owned())];
        Ok(answer)
    }

    fn settings_table(&self) -> Vec<(&'static str, String)> {
        let (port, options) = (self.port(), self.connections.broker.options());
        let address = port.addresses().into_iter().nth(usize::from(options.shard.0)).unwrap_or_default();
        let (host, number) = address.rsplit_once(':').unwrap_or((&address, ""));
        let live = self.connections.broker.live();
        let flush = if live.level == Level::Durable { "SYNC_FLUSH" } else { "ASYNC_FLUSH" };
        let mut table = vec![
            ("brokerClusterName", port.node.cluster.clone()),
            ("brokerName", self.own_name()),
            ("brokerId", "0".to_owned()),
            ("brokerIP1", host.to_owned()),
            ("listenPort", number.to_owned()),
            ("brokerPermission", "6".to_owned()),
            ("brokerRole", "ASYNC_MASTER".to_owned()),
            ("autoCreateTopicEnable", port.node.makes_topics.to_string()),
            ("autoCreateSubscriptionGroup", "true".to_owned()),
            ("storePathRootDir", options.directory.display().to_string()),
            ("flushDiskType", flush.to_owned()),
            ("mappedFileSizeCommitLog", options.segment_bytes.to_string()),
            ("maxMessageSize", limits::BODY_BYTES_MAX.to_string()),
            ("messageDelayLevel", options.delay_levels.to_string()),
            ("transactionTimeOut", live.transaction_immunity.as_millis().to_string()),
            ("transactionCheckInterval", live.transaction_check_interval.as_millis().to_string()),
            ("transactionCheckMax", options.transaction_checks_max.to_string()),
            ("enablePropertyFilter", "false".to_owned()),
            ("longPollingEnable", "true".to_owned()),
        ];
        if let Some(age) = live.retention_age {
            table.push(("fileReservedTime", age.as_secs().div_ceil(HOUR_SECONDS).to_string()));
        }
        table
    }

    /// The topics that RocketMQ's brokers have for themselves.
    pub(super) fn reserved_topics(&self, sender: &Sender) -> Result<Answer, Refused> {
        self.check_admin(sender, "list topics")?;
        let port = self.port();
        let addresses = port.addresses();
        let names = port.node.reserved_topics(addresses.len());
        let address = addresses.into_iter().nth(usize::from(self.connections.broker.shard().0));
        let address = address.unwrap_or_default();
        Ok(Answer::body(|output| write_topics_at(&address, names.iter().map(String::as_str), output)))
    }

    /// Nothing is left lying about: what a retention has passed goes by itself, and a removed topic with all that it had.
    pub(super) fn clean(&self, sender: &Sender) -> Result<Answer, Refused> {
        self.check_admin(sender, "clean up")?;
        Ok(Answer::done())
    }

    /// What a setting is already is no change. The others are changed as `turbopump config set` does, where they have a meaning here.
    pub(super) async fn change_settings(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        body: &[u8],
    ) -> Result<Option<Answer>, Refused> {
        self.check_admin(sender, "change the broker's settings")?;
        let changes = self.changes_of(&String::from_utf8_lossy(body))?;
        let broker = self.connections.broker.clone();
        let done = async move {
            if !changes.is_empty() {
                broker.handle(Request::Settings(changes)).await.map_err(Refused::failed)?;
            }
            Ok(Answer::done())
        };
        self.begin(asker, done).await
    }

    /// What the lines of a request are to change.
    fn changes_of(&self, text: &str) -> Result<Vec<SettingChange>, Refused> {
        let table = self.settings_table();
        let mut changes = Vec::new();
        for Property { name, value, .. } in properties(text) {
            if table.iter().any(|(known, present)| *known == name && *present == value) {
                continue;
            }
            let refused = |remark: String| Refused::new(ResponseCode::NoPermission, remark);
            match Fate::of(&name, &value).map_err(refused)? {
                Fate::Taken(said) | Fate::Approximated(said, _) => {
                    let change =
                        |said: Said| SettingChange { name: said.setting.to_owned(), value: Some(said.value) };
                    changes.extend(said.into_iter().map(change));
                }
                Fate::Meaningless(why) => {
                    return Err(refused(format!("`{name}` means nothing to this broker: {why}")));
                }
                Fate::Wants { why, .. } => {
                    return Err(refused(format!("`{name}` cannot be changed while the broker runs: {why}")));
                }
                // By the names of our own flags.
                Fate::Unknown => {
                    changes.push(SettingChange { name, value: Some(value).filter(|value| !value.is_empty()) })
                }
            }
        }
        Ok(changes)
    }
}
