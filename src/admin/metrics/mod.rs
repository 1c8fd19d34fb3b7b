//! `/metrics`: what a node counts, as Prometheus and whatever reads its forms scrape it. RocketMQ 5's series of a broker, under their
//! names, and our own beside them; a scrape asks every shard for what it has counted already.

mod exposition;
mod own;
mod page;
mod rocketmq;
mod scrape;

pub(super) use page::answer;
