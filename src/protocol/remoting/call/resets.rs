//! Where a group is to go on in a topic (`remoting/.../protocol/header/ResetOffsetRequestHeader.java`).

use crate::protocol::remoting::Fields;
use crate::protocol::remoting::fields::FieldError;
use crate::types::Timestamp;

/// `INVOKE_BROKER_TO_RESET_OFFSET`. Whether it is forced is left out: it is, as with Apache's broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetReset {
    pub group: String,
    pub topic: String,
    /// Of the broker; `None`: all.
    pub queue: Option<u32>,
    pub to: ResetTo,
}

/// Where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetTo {
    Offset(u64),
    /// After all that there is.
    End,
    /// The first message that was stored then or later.
    Time(Timestamp),
}

impl OffsetReset {
    pub fn read(fields: &Fields<'_>) -> Result<Self, FieldError> {
        let queue = fields.number::<i64>("queueId").and_then(|queue| u32::try_from(queue).ok());
        let offset = fields.number::<i64>("offset").and_then(|offset| u64::try_from(offset).ok());
        let time = |time: i64| match u64::try_from(time) {
            Ok(time) => ResetTo::Time(Timestamp(time)),
            Err(_) => ResetTo::End,
        };
        Ok(Self {
            group: fields.required_text("group")?.into_owned(),
            topic: fields.required_text("topic")?.into_owned(),
            queue,
            to: match offset.filter(|_| queue.is_some()) {
                Some(offset) => ResetTo::Offset(offset),
                None => time(fields.required_number("timestamp")?),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::remoting::{Cut, FieldValue, Head, Header, HeaderForm, cut};

    fn read(entries: &[(&str, &str)]) -> Result<OffsetReset, FieldError> {
        let entries = [&[("group", "g"), ("topic", "t")], entries].concat();
        let fields: Vec<_> = entries.iter().map(|(name, value)| (*name, FieldValue::Text(value))).collect();
        let mut bytes = Vec::new();
        Head { fields: &fields, ..Head::default() }.write(HeaderForm::Json, b"", &mut bytes);
        let Ok(Cut::Frame(frame)) = cut(&bytes) else { panic!("it is whole") };
        OffsetReset::read(&Header::read(frame.form, frame.header).expect("this program wrote it").fields)
    }

    #[test]
    fn a_reset_is_to_a_time_or_to_an_offset_of_one_queue() {
        let to = |entries: &[(&str, &str)]| read(entries).map(|reset| (reset.queue, reset.to));
        assert_eq!(to(&[("timestamp", "17")]), Ok((None, ResetTo::Time(Timestamp(17)))));
        assert_eq!(to(&[("timestamp", "-1"), ("queueId", "-1"), ("offset", "3")]), Ok((None, ResetTo::End)));
        assert_eq!(to(&[("queueId", "2"), ("offset", "3")]), Ok((Some(2), ResetTo::Offset(3))));
        assert_eq!(to(&[("queueId", "2"), ("timestamp", "5")]), Ok((Some(2), ResetTo::Time(Timestamp(5)))));
        assert_eq!(to(&[]), Err(FieldError("timestamp")));
    }
}
