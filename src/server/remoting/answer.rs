//! Answers, and whom they go to.

use crate::net::Outbox;
use crate::protocol::remoting::{FieldValue, Head, Header, HeaderForm, Refusal, ResponseCode};

/// Bodies up to this are copied behind their heads, which costs less than a further part of the call that sends them.
const COPIED_BYTES_MAX: usize = 2 * 1024;

/// Who is to be answered, once the request is gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    opaque: i32,
    form: HeaderForm,
    /// Of its request.
    pub code: i32,
    /// What the client is, see `common/.../MQVersion.java`.
    pub version: i32,
    is_one_way: bool,
}

/// What is answered to a request that was carried out.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub fields: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Asker {
    pub fn of(header: &Header<'_>, form: HeaderForm) -> Self {
        Self {
            opaque: header.opaque,
            form,
            code: header.code,
            version: header.version,
            is_one_way: header.is_one_way(),
        }
    }

    pub fn is_one_way(&self) -> bool {
        self.is_one_way
    }

    /// Has `write` append the answer to the request of a number, unless no answer is wanted.
    pub fn push(&self, outbox: &Outbox, write: impl FnOnce(i32, HeaderForm, &mut Vec<u8>)) {
        if !self.is_one_way {
            outbox.push_with(|output| write(self.opaque, self.form, output));
        }
    }

    /// The same with a body of any length after what `write` appends.
    pub fn push_with_body(
        &self,
        outbox: &Outbox,
        body: Vec<u8>,
        write: impl FnOnce(i32, HeaderForm, &mut Vec<u8>),
    ) {
        let is_short = body.len() <= COPIED_BYTES_MAX;
        self.push(outbox, |opaque, form, output| {
            write(opaque, form, output);
            if is_short {
                output.extend_from_slice(&body);
            }
        });
        if !is_short && !self.is_one_way {
            outbox.push_chunk(body);
        }
    }

    /// Answers, unless no answer is wanted.
    pub fn answer(&self, outbox: &Outbox, outcome: &Result<Answer, Refusal>) {
        if self.is_one_way {
            return;
        }
        outbox.push_with(|output| match outcome {
            Ok(answer) => {
                let fields = answer.fields.iter().map(|(name, value)| (*name, FieldValue::Text(value)));
                let fields: Vec<_> = fields.collect();
                let head = Head { fields: &fields, ..Head::answer_to(self.opaque, ResponseCode::Success) };
                head.write(self.form, &answer.body, output);
            }
            Err(refusal) => Head::refusal_of(self.opaque, refusal).write(self.form, b"", output),
        });
    }
}

impl Answer {
    pub fn done() -> Self {
        Self::default()
    }

    pub fn body(write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut body = Vec::new();
        write(&mut body);
        Self { body, ..Self::default() }
    }

    pub fn field(name: &'static str, value: impl Into<String>) -> Self {
        Self { fields: vec![(name, value.into())], ..Self::default() }
    }
}
