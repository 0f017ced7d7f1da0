//! The names of namespaces in messages; the instance is shown if it is not 0.

use crate::layout::namespace::Group;
use asmt_shm::{Key, NamespaceName};

/// The name of a namespace in messages; the instance is shown if it is not 0.
pub fn title(name: impl std::fmt::Display, instance: u8) -> String {
    format!("namespace '{name}'{}", of_instance(instance))
}

/// The names of several namespaces in messages.
pub fn titles(names: &[&NamespaceName], instance: u8) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    let namespaces = if names.len() == 1 { "namespace" } else { "namespaces" };
    format!("{namespaces} {}{}", quoted.join(", "), of_instance(instance))
}

/// ` of instance 2`; nothing for instance 0.
pub fn of_instance(instance: u8) -> String {
    if instance == 0 { String::new() } else { format!(" of instance {instance}") }
}

pub fn title_of(group: &Group) -> String {
    let of_instance = of_instance(group.instance);
    match (&group.name, group.nsid) {
        (Some(name), _) => title(name, group.instance),
        (None, Some(nsid)) => format!("nsid {nsid} (no name){of_instance}"),
        (None, None) => nameless_stripe(group.keys[0], group.instance),
    }
}

pub fn nameless_stripe(key: Key, instance: u8) -> String {
    format!("stripe {key} (no name){}", of_instance(instance))
}
