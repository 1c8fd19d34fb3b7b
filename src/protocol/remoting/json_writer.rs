//! Writes JSON as RocketMQ's clients read it: without blanks, since the one for Go cuts some of it by hand, and with maps
//! whose keys are numbers or objects, as its own library for Java writes them.

/// An object that is being written.
pub struct ObjectWriter<'o> {
    output: &'o mut Vec<u8>,
    is_first: bool,
}

/// An array that is being written.
pub struct ArrayWriter<'o> {
    output: &'o mut Vec<u8>,
    is_first: bool,
}

/// Appends an object with what `members` writes.
pub fn write_object(output: &mut Vec<u8>, members: impl FnOnce(&mut ObjectWriter<'_>)) {
    output.push(b'{');
    members(&mut ObjectWriter { output, is_first: true });
    output.push(b'}');
}

/// Appends an array with what `items` writes.
pub fn write_array(output: &mut Vec<u8>, items: impl FnOnce(&mut ArrayWriter<'_>)) {
    output.push(b'[');
    items(&mut ArrayWriter { output, is_first: true });
    output.push(b']');
}

impl ObjectWriter<'_> {
    pub fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        push_string(self.output, value.as_bytes());
    }

    pub fn number(&mut self, name: &str, value: i64) {
        self.name(name);
        push_number(self.output, value);
    }

    pub fn boolean(&mut self, name: &str, value: bool) {
        self.name(name);
        self.output.extend_from_slice(if value { b"true" } else { b"false" });
    }

    pub fn object(&mut self, name: &str, members: impl FnOnce(&mut ObjectWriter<'_>)) {
        self.name(name);
        write_object(self.output, members);
    }

    pub fn array(&mut self, name: &str, items: impl FnOnce(&mut ArrayWriter<'_>)) {
        self.name(name);
        write_array(self.output, items);
    }

    /// A member of which `value` appends the value, as JSON.
    pub fn member(&mut self, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
        self.name(name);
        value(self.output);
    }

    /// A member of a map from objects, such as queues: `key` writes the key's members, `value` appends the value.
    pub fn entry(&mut self, key: impl FnOnce(&mut ObjectWriter<'_>), value: impl FnOnce(&mut Vec<u8>)) {
        self.keyed(|output| write_object(output, key), value);
    }

    /// A member of any map: both append JSON. A number as a key has no quotes.
    pub fn keyed(&mut self, key: impl FnOnce(&mut Vec<u8>), value: impl FnOnce(&mut Vec<u8>)) {
        separate(self.output, &mut self.is_first);
        key(self.output);
        self.output.push(b':');
        value(self.output);
    }

    fn name(&mut self, name: &str) {
        separate(self.output, &mut self.is_first);
        push_string(self.output, name.as_bytes());
        self.output.push(b':');
    }
}

impl ArrayWriter<'_> {
    pub fn text(&mut self, value: &str) {
        separate(self.output, &mut self.is_first);
        push_string(self.output, value.as_bytes());
    }

    pub fn number(&mut self, value: i64) {
        separate(self.output, &mut self.is_first);
        push_number(self.output, value);
    }

    pub fn object(&mut self, members: impl FnOnce(&mut ObjectWriter<'_>)) {
        separate(self.output, &mut self.is_first);
        write_object(self.output, members);
    }

    pub fn array(&mut self, items: impl FnOnce(&mut ArrayWriter<'_>)) {
        self.value(|output| write_array(output, items));
    }

    /// An item that `value` appends, as JSON.
    pub fn value(&mut self, value: impl FnOnce(&mut Vec<u8>)) {
        separate(self.output, &mut self.is_first);
        value(self.output);
    }
}

fn separate(output: &mut Vec<u8>, is_first: &mut bool) {
    if !std::mem::take(is_first) {
        output.push(b',');
    }
}

/// Appends text in quotes.
pub(super) fn push_string(output: &mut Vec<u8>, text: &[u8]) {
    output.push(b'"');
    push_escaped(output, text);
    output.push(b'"');
}

/// Appends text as it stands within quotes. Bytes that are no UTF-8 stay as they are.
pub(super) fn push_escaped(output: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    while let Some(length) = rest.iter().position(|byte| matches!(byte, 0..0x20 | b'"' | b'\\')) {
        output.extend_from_slice(&rest[..length]);
        match rest[length] {
            plain @ (b'"' | b'\\') => output.extend_from_slice(&[b'\\', plain]),
            b'\n' => output.extend_from_slice(b"\\n"),
            b'\r' => output.extend_from_slice(b"\\r"),
            b'\t' => output.extend_from_slice(b"\\t"),
            control => {
                output.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(control >> 4), hex(control & 15)])
            }
        }
        rest = &rest[length + 1..];
    }
    output.extend_from_slice(rest);
}

fn hex(digit: u8) -> u8 {
    b"0123456789abcdef"[usize::from(digit)]
}

/// Appends a number in decimal.
pub(super) fn push_number(output: &mut Vec<u8>, number: i64) {
    // The longest has a sign and 19 digits.
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        start -= 1;
        digits[start] = b'-';
    }
    output.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_arrays_and_keys_of_every_kind_have_no_blanks() {
        let mut output = Vec::new();
        write_object(&mut output, |object| {
            object.text("name", "a\"b\\c\n\u{1}\u{e9}");
            object.number("least", i64::MIN);
            object.boolean("on", false);
            object.array("list", |list| {
                list.text("x");
                list.number(0);
                list.object(|_| {});
                list.array(|inner| inner.number(1));
            });
            object.object("table", |table| {
                let key = |key: &mut ObjectWriter<'_>| {
                    key.text("brokerName", "b");
                    key.number("queueId", 0);
                };
                table.entry(key, |value| push_number(value, 7));
                table.member("raw", |value| value.extend_from_slice(b"null"));
            });
        });
        assert_eq!(
            String::from_utf8(output).expect("text"),
            "{\"name\":\"a\\\"b\\\\c\\n\\u0001\u{e9}\",\"least\":-9223372036854775808,\"on\":false,\
             \"list\":[\"x\",0,{},[1]],\"table\":{{\"brokerName\":\"b\",\"queueId\":0}:7,\"raw\":null}}"
        );
    }
}
