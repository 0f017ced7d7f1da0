//! TEMP
use crate::segment::{NamespaceName, STRIPE_TRUSTED, StripeHeader};
/// m
pub struct Member<'a> {
    /// s
    pub shown: String,
    /// h
    pub header: &'a StripeHeader,
}
/// f
pub fn faults(kind: &str, members: &[Member], name: &NamespaceName, expected_count: Option<u32>) -> Vec<String> {
    let mut found = Vec::new();
    let Some(first) = members.first() else { return found };
    for member in members {
        let header = member.header;
        if header.version != 4 {
            found.push(format!("{kind} {} has version {}, expected 4", member.shown, header.version));
        }
        if header.name.as_ref() != Some(name) {
            found.push(format!("{kind} {} is of namespace '{}'", member.shown, header.name.as_ref().map_or("?", |n| n.as_str())));
        }
        if header.random != first.header.random || header.random == 0 {
            found.push(format!("{kind} {} is of another set", member.shown));
        }
        if header.flags & STRIPE_TRUSTED == 0 {
            found.push(format!("{kind} {} is not trusted", member.shown));
        }
    }
    let _ = expected_count;
    found
}
