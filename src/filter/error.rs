//! What is wrong with an expression, and where.

use crate::limits;

/// Why an expression is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {place}: {fault}")]
pub struct ExpressionError {
    /// Characters of the text up to the fault, and one.
    pub place: usize,
    pub fault: Fault,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the expression has more than {max} bytes", max = limits::EXPRESSION_BYTES_MAX)]
    TooLong,
    #[error("the expression has more than {max} parts", max = limits::EXPRESSION_PARTS_MAX)]
    TooManyParts,
    #[error("the expression is nested deeper than {max} levels", max = limits::EXPRESSION_DEPTH_MAX)]
    TooDeep,
    #[error("`{0}` has no meaning in an expression")]
    Character(char),
    #[error("the text that begins here does not end")]
    OpenText,
    #[error("the comment that begins here does not end")]
    OpenComment,
    #[error("{wanted} is expected, not {found}")]
    Unexpected { wanted: &'static str, found: String },
    #[error("{0} is beyond the numbers that there are")]
    Number(String),
    #[error("this is neither true nor false, so it is no condition")]
    NoCondition,
    #[error("<, <=, >, >= and BETWEEN compare numbers with each other, and properties with numbers")]
    NoNumber,
    #[error("nothing equals NULL: IS NULL asks for it")]
    EqualsNull,
    #[error("TRUE and FALSE do not equal a text or a number")]
    TruthWithOther,
    #[error("the lower bound of BETWEEN is above the upper one")]
    Bounds,
    #[error("IN asks for the text of a property, which has to stand before it")]
    NoProperty,
}
