//! Settings that brokers and tools share (`namesrv/.../kvconfig/KVConfigManager.java`): values by name space and name.

use std::collections::BTreeMap;

use crate::limits;

/// Bytes that an entry takes beside its texts.
const ENTRY_BYTES: usize = 64;

/// 1. `bytes` is the sum over all entries.
#[derive(Debug, Default)]
pub struct Settings {
    spaces: BTreeMap<String, BTreeMap<String, String>>,
    bytes: usize,
}

impl Settings {
    /// False when there is no room for it: nothing is changed then.
    pub fn put(&mut self, space: &str, name: &str, value: &str) -> bool {
        let before = self.get(space, name).map_or(0, |before| entry_bytes(space, name, before));
        let bytes = self.bytes - before + entry_bytes(space, name, value);
        if bytes > limits::NAMESRV_SETTINGS_BYTES_MAX {
            return false;
        }
        self.bytes = bytes;
        self.spaces.entry(space.to_owned()).or_default().insert(name.to_owned(), value.to_owned());
        true
    }

    pub fn get(&self, space: &str, name: &str) -> Option<&str> {
        self.spaces.get(space)?.get(name).map(String::as_str)
    }

    pub fn remove(&mut self, space: &str, name: &str) {
        let Some(entries) = self.spaces.get_mut(space) else { return };
        if let Some(value) = entries.remove(name) {
            self.bytes -= entry_bytes(space, name, &value);
        }
        if entries.is_empty() {
            self.spaces.remove(space);
        }
    }

    /// All of a name space; `None` when there is nothing in it.
    pub fn of_space(&self, space: &str) -> Option<&BTreeMap<String, String>> {
        self.spaces.get(space)
    }
}

fn entry_bytes(space: &str, name: &str, value: &str) -> usize {
    ENTRY_BYTES + space.len() + name.len() + value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_kept_as_long_as_there_is_room() {
        let mut settings = Settings::default();
        assert!(settings.put("ORDER_TOPIC_CONFIG", "T", "b:4"));
        assert!(settings.put("ORDER_TOPIC_CONFIG", "T", "b:8"));
        assert_eq!(settings.get("ORDER_TOPIC_CONFIG", "T"), Some("b:8"));
        let large = "x".repeat(limits::NAMESRV_SETTINGS_BYTES_MAX);
        assert!(!settings.put("ORDER_TOPIC_CONFIG", "T", &large), "nothing is changed");
        assert_eq!(settings.get("ORDER_TOPIC_CONFIG", "T"), Some("b:8"));
        settings.remove("ORDER_TOPIC_CONFIG", "T");
        settings.remove("ORDER_TOPIC_CONFIG", "T");
        assert_eq!((settings.bytes, settings.of_space("ORDER_TOPIC_CONFIG")), (0, None));
    }
}
