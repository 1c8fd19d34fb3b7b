//! Which tags a message must have one of for an expression to be true: the index knows the tags of a batch, roughly, so that
//! most messages need not be read, or looked at, at all.

use std::collections::BTreeSet;

use super::node::{Constant, Node, Slot};

/// `None`: it may be true whatever the tag is. `tag` is the slot of the tag, if the expression names it.
pub(super) fn tags(node: &Node, tag: Option<Slot>) -> Option<BTreeSet<&[u8]>> {
    let tag = tag?;
    match node {
        Node::Equal(sides) => match &**sides {
            [Node::Property(slot), Node::Constant(Constant::Text(text))]
            | [Node::Constant(Constant::Text(text)), Node::Property(slot)]
                if *slot == tag =>
            {
                Some(BTreeSet::from([&**text]))
            }
            _ => None,
        },
        Node::In { property, texts, is_not: false } if *property == tag => {
            Some(texts.iter().map(|text| &**text).collect())
        }
        // What all of them allow.
        Node::All(nodes) => {
            nodes.iter().filter_map(|node| tags(node, Some(tag))).reduce(|left, right| &left & &right)
        }
        // What any of them allows, unless one allows everything.
        Node::Any(nodes) => {
            let mut all = BTreeSet::new();
            for node in nodes {
                all.append(&mut tags(node, Some(tag))?);
            }
            Some(all)
        }
        _ => None,
    }
}
