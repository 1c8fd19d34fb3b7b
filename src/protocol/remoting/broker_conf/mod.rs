//! How Apache's broker is set up: the files it reads, the names in them, and what each means here. For whoever moves a broker, and
//! for tools that change settings by Apache's names.

mod fate;
mod names;
mod properties;

pub use fate::{Fate, Said, Translation, broker_conf};
pub use names::{has_names_of_apache, is_known};
pub use properties::{Property, properties};
