//! Which brokers there are (`remoting/.../protocol/body/ClusterInfo.java`, `BrokerMemberGroup.java`).

use std::collections::{BTreeMap, BTreeSet};

use super::route::BrokerAddresses;
use crate::protocol::remoting::json_writer::write_object;

/// All brokers, and the clusters that they are of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterInfo {
    brokers: Vec<BrokerAddresses>,
}

/// The brokers of one name.
#[derive(Clone, Copy, Debug)]
pub struct ClusterBroker<'a>(pub &'a BrokerAddresses);

impl ClusterInfo {
    pub fn new(brokers: Vec<BrokerAddresses>) -> Self {
        Self { brokers }
    }

    pub fn brokers(&self) -> &[BrokerAddresses] {
        &self.brokers
    }

    pub fn write(&self, output: &mut Vec<u8>) {
        let mut clusters: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for broker in &self.brokers {
            clusters.entry(&broker.cluster).or_default().insert(&broker.broker);
        }
        write_object(output, |info| {
            info.object("brokerAddrTable", |brokers| {
                for broker in &self.brokers {
                    brokers.object(&broker.broker, |members| broker.write(members));
                }
            });
            info.object("clusterAddrTable", |table| {
                for (cluster, names) in &clusters {
                    table.array(cluster, |brokers| names.iter().for_each(|name| brokers.text(name)));
                }
            });
        });
    }
}

impl ClusterBroker<'_> {
    pub fn write(&self, output: &mut Vec<u8>) {
        write_object(output, |body| {
            body.object("brokerMemberGroup", |group| {
                group.object("brokerAddrs", |addresses| {
                    let members = self.0.addresses.iter();
                    members.for_each(|(id, address)| addresses.text(&id.to_string(), address));
                });
                group.text("brokerName", &self.0.broker);
                group.text("cluster", &self.0.cluster);
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_stand_below_their_clusters() {
        let broker = |cluster: &str, broker: &str| BrokerAddresses {
            cluster: cluster.into(),
            broker: broker.into(),
            addresses: [(0, format!("{broker}:1"))].into(),
            zone: Some("z".into()),
            acting_master: true,
        };
        let info = ClusterInfo::new(vec![broker("C", "a"), broker("D", "b"), broker("C", "c")]);
        let mut output = Vec::new();
        info.write(&mut output);
        let text = String::from_utf8(output).expect("text");
        let first = "{\"brokerAddrTable\":{\"a\":{\"brokerAddrs\":{\"0\":\"a:1\"},\"brokerName\":\"a\",\"cluster\":\"C\",\
            \"enableActingMaster\":true,\"zoneName\":\"z\"},";
        assert!(text.starts_with(first), "{text}");
        assert!(text.ends_with("\"clusterAddrTable\":{\"C\":[\"a\",\"c\"],\"D\":[\"b\"]}}"), "{text}");
        let mut output = Vec::new();
        ClusterBroker(&broker("C", "a")).write(&mut output);
        assert_eq!(
            String::from_utf8(output).expect("text"),
            "{\"brokerMemberGroup\":{\"brokerAddrs\":{\"0\":\"a:1\"},\"brokerName\":\"a\",\"cluster\":\"C\"}}"
        );
    }
}
