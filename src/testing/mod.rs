//! stub

pub mod fuzz;
