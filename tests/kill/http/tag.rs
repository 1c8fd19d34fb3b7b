//! Which message a message is.

use std::fmt;

/// What a message is sent as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Plain,
    Delayed,
    Ordered,
    Half,
}

/// Named in every body; ordered messages have the number of their key as sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    pub kind: Kind,
    pub sender: u8,
    pub number: u64,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Plain, Kind::Delayed, Kind::Ordered, Kind::Half];

    fn name(self) -> &'static str {
        match self {
            Kind::Plain => "plain",
            Kind::Delayed => "delayed",
            Kind::Ordered => "ordered",
            Kind::Half => "half",
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}-{}", self.kind.name(), self.sender, self.number)
    }
}

impl Tag {
    /// Mostly short, now and then longer than a block.
    fn filler_bytes(self) -> usize {
        let mixed = (self.number * 8 + u64::from(self.sender)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let mixed = mixed as usize;
        if mixed.is_multiple_of(53) { 6000 + mixed % 30_000 } else { mixed % 300 }
    }

    pub fn body(self) -> String {
        let filler = (0..self.filler_bytes()).map(|index| char::from(b'a' + (index % 23) as u8));
        format!("{self}:{}", filler.collect::<String>())
    }

    /// Reads a body that must be one of ours, whole.
    pub fn of_body(body: &str) -> Self {
        let tag = || {
            let mut parts = body.split_once(':')?.0.split('-');
            let name = parts.next()?;
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name)?;
            Some(Tag { kind, sender: parts.next()?.parse().ok()?, number: parts.next()?.parse().ok()? })
        };
        let tag = tag().unwrap_or_else(|| panic!("a body that nobody has sent: {body:?}"));
        assert!(tag.body() == body, "the body of {tag} is not what was sent");
        tag
    }
}
