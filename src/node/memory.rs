//! How much memory the node may use, and how it is dealt out.

use std::path::{Path, PathBuf};

use super::options::ServeOptions;
use crate::limits;

/// What each shard is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShardMemory {
    /// For all that clients cause.
    pub client_bytes: usize,
    pub tail_cache_bytes: usize,
}

impl ShardMemory {
    /// As told, and otherwise from what the machine or the container has: half for clients, an eighth for the tail caches,
    /// each up to what more of helps nobody. The rest is for tables, groups on their way to the disk, and what the
    /// allocator keeps.
    pub fn of(options: &ServeOptions, shard_count: u16) -> Self {
        Self::divide(options, shard_count, available_bytes(Path::new("/")))
    }

    fn divide(options: &ServeOptions, shard_count: u16, available: u64) -> Self {
        let shards = u64::from(shard_count);
        let (least, most) =
            (limits::SHARD_CLIENT_MEMORY_BYTES_MIN as u64, limits::SHARD_CLIENT_MEMORY_BYTES_MAX as u64);
        let client_bytes = match options.client_memory_bytes {
            Some(bytes) => (bytes / shards).max(least),
            None => (available / 2 / shards).clamp(least, most),
        };
        let tail_cache_bytes = options
            .tail_cache_bytes
            .unwrap_or_else(|| (available / 8 / shards).min(limits::TAIL_CACHE_BYTES as u64));
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self { client_bytes: size(client_bytes), tail_cache_bytes: size(tail_cache_bytes) }
    }
}

/// The machine's memory, or what this process's control groups allow of it. `root` is where `/proc` and `/sys` are.
fn available_bytes(root: &Path) -> u64 {
    let read = |path: PathBuf| std::fs::read_to_string(path).ok();
    let machine = read(root.join("proc/meminfo")).and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
    });
    // "no limit" is "max" in version 2, which is no number, and a very large one in version 1.
    let limit = |path: PathBuf| read(path)?.trim().parse::<u64>().ok();
    let groups = read(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let (hierarchy, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            "memory" => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => return None,
        };
        // Every group on the way counts. In a container the path may be one that only its host sees.
        let ancestors = Path::new(path.trim_start_matches('/')).ancestors();
        ancestors.filter_map(|group| limit(root.join(hierarchy).join(group).join(file))).min()
    });
    limits.chain(machine).min().unwrap_or(limits::MEMORY_BYTES_UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn divided(available: u64, shards: u16, change: impl FnOnce(&mut ServeOptions)) -> (u64, u64) {
        let mut options = ServeOptions::new("data".into());
        change(&mut options);
        let memory = ShardMemory::divide(&options, shards, available);
        (memory.client_bytes as u64 / MIB, memory.tail_cache_bytes as u64 / MIB)
    }

    #[test]
    fn shards_divide_what_there_is() {
        assert_eq!(divided(512 * MIB, 4, |_| ()), (64, 16));
        assert_eq!(divided(1 << 40, 4, |_| ()), (1024, 64), "more helps nobody");
        let told = |options: &mut ServeOptions| {
            (options.client_memory_bytes, options.tail_cache_bytes) = (Some(400 * MIB), Some(MIB));
        };
        assert_eq!(divided(512 * MIB, 4, told), (100, 1));
    }

    #[test]
    fn the_narrowest_limit_counts() {
        let root = std::env::temp_dir().join(format!("turbopump-memory-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder of this test");
            std::fs::write(path, text).expect("a file of this test");
        };
        assert_eq!(available_bytes(&root), limits::MEMORY_BYTES_UNKNOWN);
        write("proc/meminfo", "MemTotal:        8388608 kB\nMemFree: 1 kB\n");
        assert_eq!(available_bytes(&root), 8 << 30);
        write("proc/self/cgroup", "0::/outer/inner\n4:memory:/\n3:cpu:/outer\n");
        write("sys/fs/cgroup/outer/inner/memory.max", "max\n");
        write("sys/fs/cgroup/outer/memory.max", &format!("{}\n", 600 * MIB));
        assert_eq!(available_bytes(&root), 600 * MIB);
        write("sys/fs/cgroup/memory/memory.limit_in_bytes", &format!("{}\n", 512 * MIB));
        assert_eq!(available_bytes(&root), 512 * MIB);
        std::fs::remove_dir_all(&root).expect("a folder of this test");
    }
}
