//! What each setting of Apache's broker becomes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::names::{is_known, reason};
use super::properties::{Property, properties};
use crate::limits;

/// Where Apache's brokers listen.
const PORT: u16 = 10911;
/// Parts of the names, in small letters, of settings whose values are nobody's business; so are those of unknown ones.
const SECRETS: [&str; 8] = [
    "initauthenticationuser",
    "credential",
    "secret",
    "password",
    "passwd",
    "token",
    "accesskey",
    "exporterheader",
];
const HIDDEN: &str = "(not shown)";

/// A setting of ours, as its flag takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub setting: &'static str,
    pub value: String,
}

/// What becomes of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It says the same here.
    Taken(Vec<Said>),
    /// It comes near; the text says what differs.
    Approximated(Vec<Said>, String),
    /// It asks for something that only another setting can say; the text says why.
    Wants { setting: &'static str, why: &'static str },
    /// There is nothing here that it could set; the text says why.
    Meaningless(String),
    /// Apache's broker has no setting of that name either.
    Unknown,
}

/// One line of a file, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translation {
    pub line: usize,
    pub name: String,
    /// Without what is secret.
    pub value: String,
    pub fate: Fate,
}

/// What else a file says that bears on a line of it.
#[derive(Clone, Copy, Default)]
struct Beside<'a> {
    port: Option<&'a str>,
    bind: Option<&'a str>,
    told: Option<&'a str>,
}

/// What every line of a file becomes. The error names the line whose value is none.
pub fn broker_conf(text: &str) -> Result<Vec<Translation>, String> {
    let lines = properties(text);
    let last = |name: &str| lines.iter().rfind(|line| line.name == name);
    let value = |name| last(name).map(|line| line.value.as_str()).filter(|value| !value.is_empty());
    let beside = Beside { port: value("listenPort"), bind: value("bindAddress"), told: value("brokerIP1") };
    let translated = |line: &Property| {
        let again = last(&line.name).filter(|again| again.line != line.line);
        let fate = match again {
            // The last one counts for Java.
            Some(again) => Ok(Fate::Meaningless(format!("line {} says it again", again.line))),
            None => fate(&line.name, &line.value, beside),
        };
        let name = line.name.to_ascii_lowercase();
        let is_secret = SECRETS.iter().any(|part| name.contains(part));
        Ok(Translation {
            line: line.line,
            name: line.name.clone(),
            value: if is_secret { HIDDEN.to_owned() } else { line.value.clone() },
            fate: fate.map_err(|reason| format!("line {}: {reason}", line.line))?,
        })
    };
    lines.iter().map(translated).collect()
}

impl Fate {
    /// What a setting becomes that is said by itself.
    pub fn of(name: &str, value: &str) -> Result<Self, String> {
        fate(name, value, Beside::default())
    }

    /// The settings of ours that it says.
    pub fn said(&self) -> &[Said] {
        match self {
            Fate::Taken(said) | Fate::Approximated(said, _) => said,
            Fate::Wants { .. } | Fate::Meaningless(_) | Fate::Unknown => &[],
        }
    }
}

fn said(setting: &'static str, value: impl Into<String>) -> Vec<Said> {
    vec![Said { setting, value: value.into() }]
}

fn taken(setting: &'static str, value: impl Into<String>) -> Fate {
    Fate::Taken(said(setting, value))
}

fn near(setting: &'static str, value: impl Into<String>, how: &str) -> Fate {
    Fate::Approximated(said(setting, value), how.to_owned())
}

fn number(name: &str, value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| format!("{name} is a whole number, not `{value}`"))
}

fn truth(name: &str, value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{name} is true or false, not `{value}`")),
    }
}

fn fate(name: &str, value: &str, beside: Beside<'_>) -> Result<Fate, String> {
    Ok(match name {
        _ if value.is_empty() && is_known(name) => Fate::Meaningless("it has no value".to_owned()),
        "brokerClusterName" => taken("cluster", value),
        "brokerName" => near("node", value, &format!("clients know shard S as the broker {value}-S")),
        "listenPort" | "bindAddress" | "brokerIP1" => address(name, value, beside)?,
        "storePathRootDir" => near(
            "data",
            value,
            "the files in it are of this program's own kind: choose an empty directory with --data, and see `turbopump \
             import-rocketmq`",
        ),
        "mappedFileSizeCommitLog" | "mapedFileSizeCommitLog" => segment_bytes(number(name, value)?),
        "fileReservedTime" => taken("retention-age", format!("{}h", number(name, value)?)),
        "flushDiskType" => match value {
            "SYNC_FLUSH" => taken("level", "durable"),
            "ASYNC_FLUSH" => {
                near("level", "written", "an answer waits for the device, though not for its flush")
            }
            _ => return Err(format!("{name} is SYNC_FLUSH or ASYNC_FLUSH, not `{value}`")),
        },
        "autoCreateTopicEnable" => taken("no-auto-create-topics", (!truth(name, value)?).to_string()),
        "messageDelayLevel" => taken("delay-levels", value),
        "transactionTimeOut" => taken("transaction-immunity", format!("{}ms", number(name, value)?)),
        "transactionCheckInterval" => {
            taken("transaction-check-interval", format!("{}ms", number(name, value)?))
        }
        "transactionCheckMax" => taken("transaction-checks", number(name, value)?.to_string()),
        "aclEnable" | "authenticationEnabled" | "authorizationEnabled" => match truth(name, value)? {
            true => Fate::Wants {
                setting: "access-keys",
                why: "who may do what stands in a file of access keys, and Apache's users are not read",
            },
            false => Fate::Meaningless("without --access-keys nobody is asked who it is".to_owned()),
        },
        "autoCreateSubscriptionGroup" | "enablePropertyFilter" | "longPollingEnable" => always(name, value)?,
        "maxMessageSize" => {
            let most = limits::BODY_BYTES_MAX;
            Fate::Meaningless(format!("a body has up to {most} bytes, whatever is set"))
        }
        "brokerId" | "brokerRole" => {
            Fate::Meaningless("every shard is a master, and has no replicas yet".to_owned())
        }
        "defaultTopicQueueNums" => {
            Fate::Meaningless("a producer says how many queues a topic gets".to_owned())
        }
        _ if is_known(name) => Fate::Meaningless(reason(name).to_owned()),
        _ => Fate::Unknown,
    })
}

/// What this program does in any case.
fn always(name: &str, value: &str) -> Result<Fate, String> {
    let does = match name {
        "autoCreateSubscriptionGroup" => "a group is there once somebody consumes as it",
        "enablePropertyFilter" => "SQL92 expressions are evaluated",
        _ => "a pull waits for messages as long as its client says",
    };
    let always = if truth(name, value)? { "always" } else { "always, and cannot be switched off" };
    Ok(Fate::Meaningless(format!("{does}, {always}")))
}

/// Apache's log has files of any size.
fn segment_bytes(asked: u64) -> Fate {
    let block = limits::BLOCK_BYTES as u64;
    let bounds = (limits::SEGMENT_BYTES_MIN, limits::SEGMENT_BYTES_MAX);
    let bytes = asked.clamp(bounds.0, bounds.1).next_multiple_of(block).min(bounds.1);
    match bytes == asked {
        true => taken("segment-bytes", bytes.to_string()),
        false => near(
            "segment-bytes",
            bytes.to_string(),
            &format!("a segment has {} to {} bytes, in blocks of {block}", bounds.0, bounds.1),
        ),
    }
}

/// Apache's broker listens at every address unless it is told one, and tells clients the one it finds, or `brokerIP1`.
fn address(name: &str, value: &str, beside: Beside<'_>) -> Result<Fate, String> {
    let address = |name: &str, text: &str| {
        text.parse::<IpAddr>().map_err(|_| format!("{name} is an address like 0.0.0.0, not `{text}`"))
    };
    let port = match beside.port.or((name == "listenPort").then_some(value)) {
        Some(text) => {
            text.parse().map_err(|_| format!("listenPort is a number up to 65535, not `{text}`"))?
        }
        None => PORT,
    };
    let bind = beside.bind.or((name == "bindAddress").then_some(value));
    let told = beside.told.or((name == "brokerIP1").then_some(value));
    let is_told_to_others =
        told.is_some_and(|told| !told.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()));
    let host = match bind {
        Some(text) => address("bindAddress", text)?,
        None if is_told_to_others => Ipv4Addr::UNSPECIFIED.into(),
        None => Ipv4Addr::LOCALHOST.into(),
    };
    let listen = Said { setting: "listen", value: SocketAddr::new(host, port).to_string() };
    Ok(match name {
        "brokerIP1" if beside.port.is_some() || bind.is_some() => taken("advertise", value),
        "brokerIP1" => Fate::Taken(vec![Said { setting: "advertise", value: value.to_owned() }, listen]),
        "listenPort" if bind.is_none() && told.is_none() => Fate::Approximated(
            vec![listen],
            format!(
                "this machine only; Apache's broker listens at every address, as with --listen 0.0.0.0:{port} and, for what \
                 clients are told, --advertise HOST"
            ),
        ),
        _ => Fate::Taken(vec![listen]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(text: &str) -> Vec<String> {
        let show = |translation: Translation| {
            let said = translation.fate.said().iter().map(|said| format!("{}={}", said.setting, said.value));
            let said = said.collect::<Vec<_>>().join(" ");
            match translation.fate {
                Fate::Taken(_) => format!("taken {said}"),
                Fate::Approximated(..) => format!("near {said}"),
                Fate::Wants { setting, .. } => format!("wants {setting}"),
                Fate::Meaningless(_) => "meaningless".to_owned(),
                Fate::Unknown => "unknown".to_owned(),
            }
        };
        broker_conf(text).expect("well formed").into_iter().map(show).collect()
    }

    /// The file that comes with Apache's releases.
    #[test]
    fn the_shipped_file_is_understood() {
        let text = "brokerClusterName = DefaultCluster\nbrokerName = broker-a\nbrokerId = 0\ndeleteWhen = 04\n\
            fileReservedTime = 48\nbrokerRole = ASYNC_MASTER\nflushDiskType = ASYNC_FLUSH\n";
        let expected = [
            "taken cluster=DefaultCluster",
            "near node=broker-a",
            "meaningless",
            "meaningless",
            "taken retention-age=48h",
            "meaningless",
            "near level=written",
        ];
        assert_eq!(fates(text), expected);
    }

    #[test]
    fn values_are_translated() {
        for (line, expected) in [
            ("flushDiskType=SYNC_FLUSH", "taken level=durable"),
            ("mapedFileSizeCommitLog=1073741824", "taken segment-bytes=1073741824"),
            ("autoCreateTopicEnable=false", "taken no-auto-create-topics=true"),
            ("transactionTimeOut=6000", "taken transaction-immunity=6000ms"),
            ("messageDelayLevel=1s 5s", "taken delay-levels=1s 5s"),
            ("authenticationEnabled=true", "wants access-keys"),
            ("aclEnable=false", "meaningless"),
            ("sendMessageThreadPoolNums=16", "meaningless"),
            ("sendMesageThreadPoolNums=16", "unknown"),
            ("fileReservedTime=", "meaningless"),
        ] {
            assert_eq!(fates(line), [expected], "{line}");
        }
        let odd = fates("mappedFileSizeCommitLog=1");
        assert_eq!(odd, [format!("near segment-bytes={}", limits::SEGMENT_BYTES_MIN)]);
    }

    #[test]
    fn addresses_belong_together() {
        assert_eq!(fates("listenPort=30911"), ["near listen=127.0.0.1:30911"]);
        assert_eq!(
            fates("listenPort=30911\nbrokerIP1=10.0.0.5"),
            ["taken listen=0.0.0.0:30911", "taken advertise=10.0.0.5"]
        );
        assert_eq!(
            fates("brokerIP1=broker.example"),
            ["taken advertise=broker.example listen=0.0.0.0:10911"]
        );
        assert_eq!(fates("bindAddress=::1\nlistenPort=1"), ["taken listen=[::1]:1", "taken listen=[::1]:1"]);
        assert_eq!(fates("brokerIP1=127.0.0.1"), ["taken advertise=127.0.0.1 listen=127.0.0.1:10911"]);
    }

    #[test]
    fn the_last_of_two_counts() {
        assert_eq!(
            fates("fileReservedTime=1\nfileReservedTime=2"),
            ["meaningless", "taken retention-age=2h"]
        );
    }

    #[test]
    fn what_is_no_value_is_named_with_its_line() {
        for (text, part) in [
            ("\nfileReservedTime=long", "line 2: fileReservedTime is a whole number, not `long`"),
            ("flushDiskType=SYNC", "SYNC_FLUSH or ASYNC_FLUSH"),
            ("listenPort=70000", "a number up to 65535"),
            ("bindAddress=here", "an address like 0.0.0.0"),
            ("aclEnable=1", "true or false"),
        ] {
            let error = broker_conf(text).expect_err(text);
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let text = "initAuthenticationUser={\"username\":\"admin\",\"password\":\"hunter2\"}";
        for text in [text, "objectStoreSecretKey=hunter2", "myPassword=hunter2"] {
            assert_eq!(broker_conf(text).expect("well formed")[0].value, HIDDEN, "{text}");
        }
    }
}
