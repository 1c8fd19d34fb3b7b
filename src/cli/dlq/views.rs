//! `dlq list`, `show` and `export`.

use std::io::{self, BufWriter, StdoutLock, Write};

use serde::Serialize;

use super::reading::{DeadLetter, Next, each_dead_letter, none_selected};
use super::{ListArguments, OfGroupArguments};
use crate::cli::calendar::rfc3339;
use crate::cli::error::CommandError;
use crate::cli::message::fields::{Fields, fields_text};
use crate::cli::message_json::write_message;
use crate::cli::output::{OutputFormat, Table, print};
use crate::types::GroupTopic;

#[derive(Serialize)]
struct ListView {
    group: String,
    dead_letters: Vec<LetterView>,
    more: bool,
}

#[derive(Serialize)]
struct LetterView {
    id: Option<String>,
    queue: u32,
    offset: u64,
    dead_since: String,
    topic: Option<String>,
    key: Option<String>,
    tag: Option<String>,
    deliveries: Option<u64>,
    moving: bool,
}

pub fn run_list(arguments: &ListArguments, format: OutputFormat) -> Result<(), CommandError> {
    let of = &arguments.of;
    let group = of.instance.group(&of.group)?;
    let (mut dead_letters, mut more) = (Vec::new(), false);
    each_dead_letter(of.server.connect()?, &group, &of.selection, |letter| {
        more = dead_letters.len() as u64 == arguments.count;
        if more {
            return Ok(Next::Enough);
        }
        dead_letters.push(LetterView::new(letter));
        Ok(Next::More)
    })?;
    let view = ListView { group: group.to_string(), dead_letters, more };
    print(format, &view, ListView::render)
}

/// Every part of each, a field a line.
pub fn run_show(arguments: &OfGroupArguments, format: OutputFormat) -> Result<(), CommandError> {
    each_line(arguments, |line, output| match format {
        OutputFormat::Json => output.write_all(line),
        OutputFormat::Text => {
            let fields: Fields = serde_json::from_slice(line).map_err(io::Error::other)?;
            writeln!(output, "{}", fields_text(&fields))
        }
    })
}

pub fn run_export(arguments: &OfGroupArguments) -> Result<(), CommandError> {
    each_line(arguments, |line, output| output.write_all(line))
}

/// Gives `write` each dead letter that is selected as a line of JSON, and what it goes to.
fn each_line(
    arguments: &OfGroupArguments,
    write: impl Fn(&[u8], &mut BufWriter<StdoutLock<'_>>) -> io::Result<()>,
) -> Result<(), CommandError> {
    let group = arguments.instance.group(&arguments.group)?;
    let mut output = BufWriter::new(io::stdout().lock());
    let (mut line, mut found) = (Vec::new(), false);
    let topic = GroupTopic::DeadLetters.of(&group);
    each_dead_letter(arguments.server.connect()?, &group, &arguments.selection, |letter| {
        found = true;
        line.clear();
        let written = write_message(&mut line, &topic, letter.queue, &letter.message, letter.ids);
        written.map_err(CommandError::output)?;
        write(&line, &mut output).map_err(CommandError::output)?;
        Ok(Next::More)
    })?;
    output.flush().map_err(CommandError::output)?;
    if found { Ok(()) } else { Err(none_selected(&group)) }
}

impl LetterView {
    fn new(letter: &DeadLetter<'_>) -> Self {
        let text = |bytes: &[u8]| (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into_owned());
        let message = &letter.message;
        Self {
            id: letter.id().map(|id| id.to_string()),
            queue: letter.queue.0,
            offset: message.offset.0,
            dead_since: rfc3339(message.store_time),
            topic: letter.topic().map(str::to_owned),
            key: text(message.key()),
            tag: text(message.tag()),
            deliveries: letter.deliveries(),
            moving: letter.is_moving,
        }
    }
}

impl ListView {
    fn render(&self) -> String {
        if self.dead_letters.is_empty() {
            return "no dead letters\n".to_owned();
        }
        let mut table = Table::new(["DEAD SINCE", "TOPIC", "KEY", "TAG", "DELIVERIES", "ID"]);
        let or_none = |text: &Option<String>| text.as_deref().unwrap_or("-").to_owned();
        for letter in &self.dead_letters {
            let deliveries = letter.deliveries.map(|deliveries| deliveries.to_string());
            table.row([
                letter.dead_since.clone(),
                or_none(&letter.topic),
                or_none(&letter.key),
                or_none(&letter.tag),
                or_none(&deliveries),
                or_none(&letter.id),
            ]);
        }
        let more = if self.more { "there are more: --count prints more of them\n" } else { "" };
        let moving = self.dead_letters.iter().filter(|letter| letter.moving).count();
        let moving = match moving {
            0 => String::new(),
            count => format!("{count} on their way to a topic: the next redrive brings them to their end\n"),
        };
        table.render() + more + &moving
    }
}
