//! Calls below `/api/`, which answer in JSON. Each carries out requests of `api` for whoever calls, and is let do what an access
//! key lets a native client do: see `server::Connections::carry_out`.

mod node;
mod routes;

pub(super) use routes::answer;
