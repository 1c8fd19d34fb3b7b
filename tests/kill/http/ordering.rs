//! Order per key, as consumers in order see it.

use std::collections::{BTreeMap, BTreeSet};

use super::books::Entry;
use super::connection::Delivered;
use super::tag::{Kind, Tag};

/// Holds what one receive has brought against what each key has seen before.
pub fn check(entries: &BTreeMap<Tag, Entry>, leased: &[(Tag, Delivered)]) {
    let keys: BTreeSet<u8> =
        leased.iter().filter(|(tag, _)| tag.kind == Kind::Ordered).map(|(tag, _)| tag.sender).collect();
    for key in keys {
        let numbers: Vec<u64> = leased
            .iter()
            .filter(|(tag, _)| tag.kind == Kind::Ordered && tag.sender == key)
            .map(|(tag, _)| tag.number)
            .collect();
        check_key(entries, key, &numbers);
    }
}

fn check_key(entries: &BTreeMap<Tag, Entry>, key: u8, numbers: &[u64]) {
    assert!(numbers.is_sorted_by(|one, next| one < next), "key {key} out of order: {numbers:?}");
    let tag = |number| Tag { kind: Kind::Ordered, sender: key, number };
    let last = *numbers.last().expect("the key is in it");
    let seen = entries.range(tag(0)..=tag(u64::MAX)).filter(|(_, entry)| entry.delivered);
    let newest = seen.map(|(tag, _)| tag.number).next_back();
    let is_new = |number: u64| newest.is_none_or(|newest| number > newest);
    let describe = |number| format!("{}: {:?}", tag(number), entries[&tag(number)]);
    for (tag, entry) in entries.range(tag(0)..tag(last)) {
        if numbers.contains(&tag.number) {
            continue;
        }
        // Those without an answer may not be there.
        let is_skipped = is_new(tag.number) && entry.answered;
        assert!(!is_skipped, "key {key}: {numbers:?} before {}", describe(tag.number));
        assert!(!entry.is_open(), "key {key}: {numbers:?} before the end of {}", describe(tag.number));
    }
    // One that was passed over is not there, or it would have come in its turn.
    for &number in numbers.iter().filter(|number| !is_new(**number)) {
        assert!(entries[&tag(number)].delivered, "key {key}: {numbers:?}, late: {}", describe(number));
    }
}
