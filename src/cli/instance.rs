//! `turbopump instance`, and the flag `--instance` of other commands.

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::api::InstanceInfo;
use crate::cli::error::CommandError;
use crate::cli::output::{OutputFormat, Table, print};
use crate::cli::server::ServerArguments;
use crate::client::{Client, ClientError};
use crate::types::{GroupName, InstanceName, TopicName};

#[derive(Debug, Args)]
pub struct InstanceArguments {
    #[command(subcommand)]
    pub command: InstanceCommand,
}

#[derive(Debug, Subcommand)]
pub enum InstanceCommand {
    /// Create an instance, a name space of topics and groups
    Create(NameArguments),
    /// List all instances with the number of their topics and groups
    #[command(visible_alias = "ls")]
    List(ServerArguments),
    /// Delete an instance that has no topics
    #[command(visible_alias = "rm")]
    Delete(NameArguments),
}

#[derive(Debug, Args)]
pub struct NameArguments {
    pub instance: InstanceName,
    #[command(flatten)]
    pub server: ServerArguments,
}

/// The name space of the topics and groups that a command names.
#[derive(Clone, Debug, Default, Args)]
pub struct InstanceFlag {
    /// Instance of the topic and group: ORDERS in instance I is I%ORDERS [default: the default instance]
    #[arg(long, value_name = "INSTANCE")]
    pub instance: Option<InstanceName>,
}

impl InstanceFlag {
    /// The whole name of a topic.
    pub fn topic(&self, topic: &TopicName) -> Result<TopicName, CommandError> {
        match &self.instance {
            None => Ok(topic.clone()),
            Some(instance) => instance.topic(topic).map_err(CommandError::usage),
        }
    }

    /// The whole name of a group.
    pub fn group(&self, group: &GroupName) -> Result<GroupName, CommandError> {
        match &self.instance {
            None => Ok(group.clone()),
            Some(instance) => instance.group(group).map_err(CommandError::usage),
        }
    }

    /// That nothing belongs to the instance is an answer only if there is such an instance.
    pub fn check_exists(&self, client: &mut Client) -> Result<(), CommandError> {
        let Some(instance) = &self.instance else { return Ok(()) };
        let known = match client.list_instances() {
            Ok(known) => known,
            // An access key that may not ask this sees what it may see.
            Err(ClientError::Refused(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if known.iter().any(|known| known.instance.as_ref() == Some(instance)) {
            return Ok(());
        }
        Err(CommandError::failed(format!(
            "instance {instance} does not exist: `turbopump instance list` tells which there are"
        )))
    }

    /// Whether a list shows what belongs to `instance`: everything, unless one was named.
    pub fn shows(&self, instance: Option<&InstanceName>) -> bool {
        self.instance.is_none() || self.instance.as_ref() == instance
    }
}

#[derive(Serialize)]
struct ListView {
    instances: Vec<InstanceView>,
}

/// The default instance's name is empty.
#[derive(Serialize)]
struct InstanceView {
    instance: String,
    topic_count: u32,
    group_count: u32,
}

/// What was done to which instance.
#[derive(Serialize)]
struct DoneView {
    instance: String,
    done: &'static str,
}

pub fn run(arguments: InstanceArguments, format: OutputFormat) -> Result<(), CommandError> {
    match arguments.command {
        InstanceCommand::Create(command) => {
            command.server.connect()?.create_instance(&command.instance)?;
            print_done(format, &command.instance, "created")
        }
        InstanceCommand::Delete(command) => {
            command.server.connect()?.delete_instance(&command.instance)?;
            print_done(format, &command.instance, "deleted")
        }
        InstanceCommand::List(server) => {
            let instances = server.connect()?.list_instances()?;
            let view = ListView { instances: instances.iter().map(InstanceView::new).collect() };
            print(format, &view, render_list)
        }
    }
}

fn render_list(view: &ListView) -> String {
    let mut table = Table::new(["INSTANCE", "TOPICS", "GROUPS"]);
    for instance in &view.instances {
        let name = if instance.instance.is_empty() { "(default)" } else { &instance.instance };
        table.row([name.to_owned(), instance.topic_count.to_string(), instance.group_count.to_string()]);
    }
    table.render()
}

fn print_done(format: OutputFormat, instance: &InstanceName, done: &'static str) -> Result<(), CommandError> {
    let view = DoneView { instance: instance.to_string(), done };
    print(format, &view, |view| format!("instance {} {}", view.instance, view.done))
}

impl InstanceView {
    fn new(info: &InstanceInfo) -> Self {
        Self {
            instance: info.instance.as_ref().map(InstanceName::to_string).unwrap_or_default(),
            topic_count: info.topic_count,
            group_count: info.group_count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::to_json;

    #[test]
    fn the_flag_makes_whole_names() {
        let flag = InstanceFlag { instance: Some("I".parse().expect("a name")) };
        let topic = |flag: &InstanceFlag, name: &str| flag.topic(&name.parse().expect("a name"));
        assert_eq!(topic(&flag, "t").expect("short enough").as_str(), "I%t");
        assert_eq!(topic(&flag, "%DLQ%g").expect("short enough").as_str(), "%DLQ%I%g");
        assert_eq!(topic(&InstanceFlag::default(), "t").expect("as it is").as_str(), "t");
        assert_eq!(topic(&flag, &"t".repeat(126)).expect_err("too long").exit_code(), 2);
        let (mine, other) = ("I".parse().expect("a name"), "J".parse().expect("a name"));
        assert!(flag.shows(Some(&mine)) && !flag.shows(Some(&other)) && !flag.shows(None));
        assert!(InstanceFlag::default().shows(Some(&other)) && InstanceFlag::default().shows(None));
    }

    #[test]
    fn the_default_instance_has_no_name() {
        let info = |instance: Option<&str>| InstanceInfo {
            instance: instance.map(|name| name.parse().expect("a name")),
            topic_count: 2,
            group_count: 1,
        };
        let view =
            ListView { instances: [info(None), info(Some("I"))].iter().map(InstanceView::new).collect() };
        assert_eq!(
            render_list(&view),
            "INSTANCE   TOPICS  GROUPS\n(default)       2       1\nI               2       1\n"
        );
        assert!(to_json(&view).starts_with(r#"{"instances":[{"instance":"","topic_count":2,"#));
    }
}
