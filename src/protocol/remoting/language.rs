//! What clients are written in (`remoting/.../protocol/LanguageCode.java`): by name in JSON, by number in binary headers.

use std::fmt;

/// The release before which numbers of releases follow no rule (4.0.0; `common/.../MQVersion.java`).
const REGULAR_FROM: i64 = 212;
/// What the number of a release that is told by `number` is above half of it.
const REGULAR_BASE: i64 = 294;

/// A client's language, as it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    Java,
    Cpp,
    Dotnet,
    Python,
    Delphi,
    Erlang,
    Ruby,
    /// Any that RocketMQ has no name for.
    #[default]
    Other,
    Http,
    Go,
    Php,
    Oms,
    Rust,
    NodeJs,
}

impl Language {
    /// In the order of their numbers.
    pub const ALL: [Language; 14] = [
        Language::Java,
        Language::Cpp,
        Language::Dotnet,
        Language::Python,
        Language::Delphi,
        Language::Erlang,
        Language::Ruby,
        Language::Other,
        Language::Http,
        Language::Go,
        Language::Php,
        Language::Oms,
        Language::Rust,
        Language::NodeJs,
    ];

    pub fn number(self) -> u8 {
        self as u8
    }

    pub fn name(self) -> &'static str {
        match self {
            Language::Java => "JAVA",
            Language::Cpp => "CPP",
            Language::Dotnet => "DOTNET",
            Language::Python => "PYTHON",
            Language::Delphi => "DELPHI",
            Language::Erlang => "ERLANG",
            Language::Ruby => "RUBY",
            Language::Other => "OTHER",
            Language::Http => "HTTP",
            Language::Go => "GO",
            Language::Php => "PHP",
            Language::Oms => "OMS",
            Language::Rust => "RUST",
            Language::NodeJs => "NODE_JS",
        }
    }

    /// `Other` for numbers that are none.
    pub fn of_number(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or_default()
    }

    /// By name, or by number as text. `Other` for what is neither.
    pub fn of_text(text: &[u8]) -> Self {
        let named = Self::ALL.into_iter().find(|language| language.name().as_bytes() == text);
        let number = || std::str::from_utf8(text).ok()?.parse().ok().map(Self::of_number);
        named.or_else(number).unwrap_or_default()
    }
}

impl fmt::Display for Language {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// A release by its number: `V5_5_0`.
pub fn release_name(number: i64) -> String {
    if number < REGULAR_FROM {
        return format!("V3_{number}");
    }
    let version = number / 2 + REGULAR_BASE;
    let unfinished = if number % 2 == 0 { "_SNAPSHOT" } else { "" };
    format!("V{}_{}_{}{unfinished}", version / 100, version / 10 % 10, version % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_one_to_one() {
        for (number, language) in (0..).zip(Language::ALL) {
            assert_eq!((language.number(), Language::of_number(number)), (number, language));
            assert_eq!(Language::of_text(language.name().as_bytes()), language);
            assert_eq!(Language::of_text(number.to_string().as_bytes()), language);
        }
        for text in ["COBOL", "", "200", "java"] {
            assert_eq!(Language::of_text(text.as_bytes()), Language::Other, "{text}");
        }
    }

    #[test]
    fn releases_are_named_as_rocketmqs_tools_name_them() {
        let names = [213, 398, 399, 479, 513].map(release_name);
        assert_eq!(names, ["V4_0_0", "V4_9_3_SNAPSHOT", "V4_9_3", "V5_3_3", "V5_5_0"]);
    }
}
