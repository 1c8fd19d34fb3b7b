//! What tools ask a broker for: topics, groups, who consumes and produces, settings and counters
//! (`broker/.../processor/AdminBrokerProcessor.java`).

mod consumers;
mod counters;
mod groups;
mod inquiries;
mod queues;
mod requests;
mod runtime_info;
mod settings;
mod topics;
mod users;
