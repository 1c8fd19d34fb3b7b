//! Who waits for a topic to be made: readers of a group's retries, of which there are none before the first one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::waits::LookNow;
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::types::TopicName;

/// Those who wait, by the topic's name and a number.
#[derive(Default)]
pub(in crate::broker) struct UnmadeTopics {
    callers: RefCell<BTreeMap<(TopicName, u64), Rc<dyn LookNow>>>,
    next_number: Cell<u64>,
}

/// An entry, which leaves the list when this is dropped.
pub struct TopicWait {
    list: Rc<UnmadeTopics>,
    entry: (TopicName, u64),
}

impl UnmadeTopics {
    fn add(self: &Rc<Self>, topic: &TopicName, caller: Rc<dyn LookNow>) -> TopicWait {
        let number = self.next_number.get();
        self.next_number.set(number + 1);
        let entry = (topic.clone(), number);
        self.callers.borrow_mut().insert(entry.clone(), caller);
        TopicWait { list: self.clone(), entry }
    }

    /// A topic is there: those who wait for it are called, each once.
    pub fn made(&self, topic: &TopicName) {
        while let Some(caller) = self.take_first(topic) {
            caller.look_now();
        }
    }

    /// Takes somebody out who waits for a topic: nothing is borrowed while it is called.
    fn take_first(&self, topic: &TopicName) -> Option<Rc<dyn LookNow>> {
        let mut callers = self.callers.borrow_mut();
        let (first, _) = callers.range((topic.clone(), 0)..).next()?;
        let first = (first.0 == *topic).then(|| first.clone())?;
        callers.remove(&first)
    }
}

impl Drop for TopicWait {
    fn drop(&mut self) {
        self.list.callers.borrow_mut().remove(&self.entry);
    }
}

impl<D: Disk> Broker<D> {
    /// Lets somebody wait until this shard has a topic: `caller` is called then, once.
    pub fn await_topic(&self, topic: &TopicName, caller: Rc<dyn LookNow>) -> TopicWait {
        self.unmade_topics.add(topic, caller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Counted(Cell<u32>);

    impl LookNow for Counted {
        fn look_now(&self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn those_who_wait_for_a_topic_are_called_once_when_it_is_made() {
        let list = Rc::<UnmadeTopics>::default();
        let callers: Vec<_> = (0..4).map(|_| Rc::<Counted>::default()).collect();
        let topic = |name: &str| name.parse::<TopicName>().expect("a name");
        let names = ["b", "b", "a", "bb"];
        let mut waits: Vec<_> = names
            .iter()
            .zip(&callers)
            .map(|(name, caller)| Some(list.add(&topic(name), caller.clone())))
            .collect();
        waits[1] = None;
        list.made(&topic("b"));
        list.made(&topic("b"));
        let counts: Vec<_> = callers.iter().map(|caller| caller.0.get()).collect();
        assert_eq!(counts, [1, 0, 0, 0]);
        drop(waits);
        assert!(list.callers.borrow().is_empty());
    }
}
