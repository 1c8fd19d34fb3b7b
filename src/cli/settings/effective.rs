//! What the settings of `serve` are in the end, with what the defaults come to on this machine.

use std::path::Path;

use toml::Value;

use crate::broker::LeaseDefaults;
use crate::cli::log_level::{LogFormat, LogLevels};
use crate::cli::quantity::{ByteSize, Span};
use crate::cli::settings::sources::Origin;
use crate::node::{Place, Prospect, ServeOptions, TlsMode};

/// One setting as a configuration file has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    /// As the flag has it.
    pub name: &'static str,
    /// `None`: the setting has no value, and cannot be given that one.
    pub value: Option<Value>,
    /// What the value comes from, or what it means that there is none, where nobody has said one.
    pub note: String,
}

/// A setting with its value.
fn is(name: &'static str, value: impl Into<Value>) -> Effective {
    Effective { name, value: Some(value.into()), note: String::new() }
}

/// One that may have none; `none` is what that means.
fn may_be(name: &'static str, value: Option<impl Into<Value>>, none: &str) -> Effective {
    let note = if value.is_some() { String::new() } else { none.to_owned() };
    Effective { name, value: value.map(Into::into), note }
}

impl Effective {
    /// The value as the flag takes it.
    pub fn text(&self) -> Option<String> {
        self.value.as_ref().map(|value| match value {
            Value::String(text) => text.clone(),
            Value::Array(items) => items.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            value => value.to_string(),
        })
    }

    /// Where the value comes from when nobody has said one.
    pub fn unsaid(&self, prospect: &Prospect) -> Origin {
        let is_kept = prospect.is_made && matches!(self.name, "shards" | "node");
        if is_kept { Origin::Directory } else { Origin::Default }
    }

    fn because(self, note: &str) -> Self {
        Self { note: note.to_owned(), ..self }
    }
}

fn span(value: std::time::Duration) -> String {
    Span(value).to_string()
}

fn bytes(value: u64) -> String {
    ByteSize(value).to_string()
}

fn path(value: &Path) -> String {
    value.display().to_string()
}

/// An address that the node can do without.
fn place(name: &'static str, place: Place, wanted: Option<String>) -> Effective {
    match (place, wanted) {
        (Place::Usual, Some(address)) => is(name, address).because("if it is free"),
        (Place::Usual, None) => is(name, "none").because("since --listen is not on loopback"),
        (Place::Nowhere, _) => is(name, "none"),
        (Place::At(address), _) => is(name, address.to_string()),
    }
}

/// All settings, in the order of the flags.
pub fn effective(
    options: &ServeOptions,
    levels: &LogLevels,
    format: LogFormat,
    prospect: &Prospect,
) -> Vec<Effective> {
    let mut all = addresses(options, prospect);
    all.extend(safety(options));
    all.extend(place_of_data(options, prospect));
    all.extend(defaults_of_topics(options));
    all.extend(leases(options));
    all.extend([
        is("tail-cache-bytes", bytes(prospect.tail_cache_bytes)).because("as the memory allows"),
        is("client-memory", bytes(prospect.client_memory_bytes)).because("as the memory allows"),
        is("transaction-immunity", span(options.transaction_immunity)),
        is("transaction-check-interval", span(options.transaction_check_interval)),
        is("transaction-checks", i64::from(options.transaction_checks)),
        is("log-level", levels.to_string()),
        is("log-format", format.name()),
        is("buffered-io", options.buffered_io),
    ]);
    all
}

fn addresses(options: &ServeOptions, prospect: &Prospect) -> Vec<Effective> {
    let text = |wanted: Option<crate::node::Wanted>| wanted.map(|wanted| wanted.address.to_string());
    let namesrv = match options.remoting {
        true => place("namesrv", options.namesrv, text(options.namesrv_wanted())),
        false => is("namesrv", "none").because("since --remoting=false"),
    };
    vec![
        is("data", path(&options.data)),
        is("listen", options.listen.to_string()),
        may_be("node-listen", options.node_listen.map(|address| address.to_string()), "none"),
        place("http", options.http, text(options.http_wanted())),
        namesrv,
        place("admin", options.admin, text(options.admin_wanted())),
        is("admin-writable", options.admin_writable),
        is("remoting", options.remoting),
        is("node", prospect.node.clone()).because("the host's name"),
        is("cluster", options.cluster.clone()),
    ]
}

fn safety(options: &ServeOptions) -> Vec<Effective> {
    let file = |file: &Option<std::path::PathBuf>| file.as_deref().map(path);
    let mode = match (options.tls_mode, &options.tls_certificate) {
        (mode, Some(_)) => may_be("tls-mode", mode.map(TlsMode::name), "TLS beside the native protocol"),
        (mode, None) => may_be("tls-mode", mode.map(TlsMode::name), "TLS is not spoken"),
    };
    vec![
        may_be("access-keys", file(&options.access_keys), "nobody is asked for a key"),
        is("open-to-everybody", options.open_to_everybody),
        is("separate-protocols", options.separate_protocols),
        may_be("tls-certificate", file(&options.tls_certificate), "TLS is not spoken"),
        may_be("tls-key", file(&options.tls_key), "TLS is not spoken"),
        mode,
        is("http-idle-timeout", span(options.http_idle_timeout)),
        may_be("advertise", options.advertise.clone(), "the address of --listen"),
    ]
}

fn place_of_data(options: &ServeOptions, prospect: &Prospect) -> Vec<Effective> {
    let cores: Vec<Value> = prospect.cores.iter().map(|core| Value::Integer(*core as i64)).collect();
    vec![
        is("shards", i64::from(prospect.shards)).because("one per core"),
        is("cores", cores).because("all that this process may use"),
        is("level", options.level.name()),
        is("segment-bytes", bytes(options.segment_bytes)),
    ]
}

fn defaults_of_topics(options: &ServeOptions) -> Vec<Effective> {
    let age = options.retention_age.map_or_else(|| "none".to_owned(), span);
    let size = options.retention_bytes.map_or_else(|| "none".to_owned(), bytes);
    let queues = options.auto_create_topics.map(i64::from);
    vec![
        is("retention-age", age),
        is("retention-bytes", size),
        may_be("auto-create-topics", queues, "topics are made by command, and over RocketMQ's protocol"),
        is("no-auto-create-topics", options.no_auto_create_topics),
    ]
}

fn leases(options: &ServeOptions) -> Vec<Effective> {
    let LeaseDefaults { deliveries_max, lease, ordered_lease } = options.leases;
    let idle = options.group_idle.map_or_else(|| "none".to_owned(), span);
    vec![
        is("lease", span(lease)),
        is("ordered-lease", span(ordered_lease)),
        is("deliveries", i64::from(deliveries_max)),
        is("group-idle", idle),
        is("lock-lease", span(options.lock_lease)),
        is("delay-levels", options.delay_levels.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::settings::environment::flags;

    #[test]
    fn every_flag_is_shown() {
        let prospect = Prospect {
            is_made: false,
            shards: 2,
            node: "host".into(),
            cores: vec![0, 1],
            client_memory_bytes: 1 << 30,
            tail_cache_bytes: 64 << 20,
        };
        let options = ServeOptions::new("data".into());
        let shown = effective(&options, &LogLevels::default(), LogFormat::Text, &prospect);
        let names: Vec<_> = shown.iter().map(|setting| setting.name.to_owned()).collect();
        assert_eq!(names, flags());
        for setting in &shown {
            assert!(setting.value.is_some() || !setting.note.is_empty(), "{} says nothing", setting.name);
        }
    }
}
