//! Which messages somebody asks for.

use std::sync::Arc;

use super::receive::TagFilter;
use crate::filter::Expression;

/// By tags, or by what an expression says of all properties.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Filter {
    Tags(TagFilter),
    Expression(Arc<Expression>),
}

impl Default for Filter {
    fn default() -> Self {
        Self::Tags(TagFilter::default())
    }
}

impl From<TagFilter> for Filter {
    fn from(tags: TagFilter) -> Self {
        Self::Tags(tags)
    }
}

impl Filter {
    /// Reads tags, see [`TagFilter::parse`].
    pub fn parse(tags: Option<&str>) -> Self {
        TagFilter::parse(tags).into()
    }

    /// What says it: tags, or an expression.
    pub fn text(&self) -> String {
        match self {
            Filter::Tags(tags) => tags.expression(),
            Filter::Expression(expression) => expression.text().to_owned(),
        }
    }

    pub fn is_everything(&self) -> bool {
        match self {
            Filter::Tags(tags) => tags.is_everything(),
            Filter::Expression(_) => false,
        }
    }

    /// What it takes of memory, beyond itself.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Filter::Tags(tags) => tags.tags().iter().map(|tag| tag.len() + size_of::<String>()).sum(),
            Filter::Expression(expression) => expression.memory_bytes(),
        }
    }
}
