//! Which state of its tables a broker is at (`remoting/.../protocol/DataVersion.java`).

use crate::protocol::remoting::json::Value;
use crate::protocol::remoting::json_writer::write_object;

/// Two that differ in anything are of different tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataVersion {
    pub counter: i64,
    pub state: i64,
    pub timestamp: i64,
}

impl DataVersion {
    pub fn of(value: &Value<'_>) -> Self {
        let number = |name| value.get(name).as_number().unwrap_or(0);
        Self { counter: number("counter"), state: number("stateVersion"), timestamp: number("timestamp") }
    }

    pub fn write(&self, output: &mut Vec<u8>) {
        write_object(output, |version| {
            version.number("counter", self.counter);
            version.number("stateVersion", self.state);
            version.number("timestamp", self.timestamp);
        });
    }
}
