//! What a call is told in its query or its body.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::de::DeserializeOwned;

use super::asking::Asking;
use crate::admin::request::Request;
use crate::api::Failure;

/// A parameter that may be left out.
pub(super) fn optional<T>(request: &Request, name: &str) -> Result<Option<T>, Failure>
where
    T: FromStr<Err: Display>,
{
    let Some(text) = request.parameter(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    text.parse().map(Some).map_err(|error| Failure::invalid(format!("the parameter `{name}`: {error}")))
}

pub(super) fn required<T>(request: &Request, name: &str) -> Result<T, Failure>
where
    T: FromStr<Err: Display>,
{
    optional(request, name)?.ok_or_else(|| Failure::invalid(format!("the parameter `{name}` is missing")))
}

/// A number that may be left out.
pub(super) fn number<T>(
    request: &Request,
    name: &str,
    range: RangeInclusive<T>,
    otherwise: T,
) -> Result<T, Failure>
where
    T: FromStr<Err: Display> + PartialOrd + Display,
{
    let number = optional(request, name)?.unwrap_or(otherwise);
    if range.contains(&number) {
        return Ok(number);
    }
    let (least, most) = (range.start(), range.end());
    Err(Failure::invalid(format!("the parameter `{name}` is {least} to {most}, not {number}")))
}

/// A segment of the path, or a field of a document, as what it names.
pub(super) fn name<T>(text: &str) -> Result<T, Failure>
where
    T: FromStr<Err: Display>,
{
    text.parse().map_err(Failure::invalid)
}

/// The request's body, a document of JSON.
pub(super) async fn document<T: DeserializeOwned>(asking: Asking<'_>) -> Result<T, Failure> {
    let body = asking.visit.pace.reading(asking.request.body()).await?;
    serde_json::from_slice(&body)
        .map_err(|error| Failure::invalid(format!("the body is not the document that is expected: {error}")))
}
