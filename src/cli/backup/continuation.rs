//! Whether a log goes on where a backup ends. The data directory of the same node need not be the one that was backed up before: it may be an
//! older copy, or one that was restored and has gone its own way since. A backup that was brought up to date with such a one would
//! lose what only it has.

use std::path::Path;

use super::catalog::{Catalog, FileIdentity, ShardCopy, cannot};
use super::source::Source;
use super::store;
use crate::cli::error::CommandError;
use crate::log::segment_name;
use crate::types::LogPosition;

/// Refuses to bring a backup up to date with a log that does not begin as the backup's does, or ends before it.
pub fn check(backup: &Path, source: &mut Source, before: Option<&Catalog>) -> Result<(), CommandError> {
    let Some(before) = before else { return Ok(()) };
    let positions = source.positions()?;
    for (shard, now) in before.shards.iter().zip(positions) {
        let number = shard.shard;
        let why = if now.0 < shard.position || source.manifest(number)?.epoch < shard.epoch {
            format!(
                "the log of shard {number} ends at position {now}, and the backup has it up to {}",
                shard.position
            )
        } else if !goes_on(source, shard)? {
            format!(
                "the log of shard {number} has something else before position {} than the backup",
                shard.position
            )
        } else {
            continue;
        };
        return Err(CommandError::failed(format!(
            "{} has what this data directory has not: {why}. It is an older copy of the node, or one that has gone its own way since; name \
             another directory for its backups",
            backup.display()
        )));
    }
    Ok(())
}

/// Whether the segment in which the backup ends has the bytes that were copied. Of one that retention has taken nothing is known, nor of
/// one that cannot be read to there: whatever copies it will say so.
fn goes_on(source: &Source, before: &ShardCopy) -> Result<bool, CommandError> {
    let Some(last) = before.segments.last() else { return Ok(true) };
    let path = source.log(before.shard).join(segment_name(LogPosition(last.base)));
    let Some(now) = FileIdentity::of(&path)? else { return Ok(true) };
    if last.is_whole() && now == last.source {
        return Ok(true);
    }
    let bytes = std::fs::metadata(&path).map_err(|error| cannot("read", &path, &error))?.len();
    if bytes < last.stored {
        return Ok(true);
    }
    let read = store::read(&path, last.stored, |_| Ok(()));
    // It may have gone meanwhile.
    if FileIdentity::of(&path)?.is_none_or(|still| !still.is_same_file(&now)) {
        return Ok(true);
    }
    Ok(read? == last.crc32c)
}
