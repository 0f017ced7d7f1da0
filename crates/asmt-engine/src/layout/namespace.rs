//! The members of a namespace, and whether they are complete: for segments in memory and for files
//! of a backup.

use crate::layout::sets::{self, Member};
use asmt_shm::{Address, FIRST_STAGE, Header, Key, MAX_STAGES, NamespaceName, SegmentType, StripeHeader};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// A namespace in memory: its index, found by nsid, and its stripes, found by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Instance.
    pub instance: u8,
    /// Name; `None` for index segments without a readable base.
    pub name: Option<NamespaceName>,
    /// nsid of the index, if there is one.
    pub nsid: Option<u8>,
    /// Keys, ascending.
    pub keys: Vec<Key>,
}

/// Groups keys by instance and namespace name, for segments and for files.
///
/// Index segments without a base belong to the namespace whose stripes have their nsid, unless that
/// namespace has a base of its own. Otherwise the rest of a namespace would pass for a whole one
/// that has only data.
pub fn group<'a>(segments: impl Iterator<Item = (Key, Address, Option<&'a NamespaceName>)> + Clone) -> Vec<Group> {
    let base_names: HashMap<(u8, u8), &NamespaceName> = segments
        .clone()
        .filter(|(_, address, _)| address.segment_type == SegmentType::PiBase)
        .filter_map(|(_, address, name)| Some(((address.instance, address.nsid), name?)))
        .collect();
    let based: HashSet<(u8, &NamespaceName)> = base_names.iter().map(|(place, name)| (place.0, *name)).collect();
    let stripe_names: HashMap<(u8, u8), &NamespaceName> = segments
        .clone()
        .filter(|(_, address, _)| !address.segment_type.is_index())
        .filter_map(|(_, address, name)| Some(((address.instance, address.nsid), name?)))
        .filter(|((instance, _), name)| !based.contains(&(*instance, *name)))
        .collect();
    // Instance and name; groups without a name by nsid, index and data apart.
    type Identity = (u8, Option<NamespaceName>, Option<(u8, bool)>);
    let mut groups: BTreeMap<Identity, Group> = BTreeMap::new();
    for (key, address, own_name) in segments {
        let is_index = address.segment_type.is_index();
        let place = (address.instance, address.nsid);
        let name = if is_index { base_names.get(&place).or_else(|| stripe_names.get(&place)).copied() } else { own_name };
        let nameless = name.is_none().then_some((address.nsid, is_index));
        let group = groups.entry((address.instance, name.cloned(), nameless)).or_insert_with(|| Group {
            instance: address.instance,
            name: name.cloned(),
            nsid: None,
            keys: Vec::new(),
        });
        if is_index {
            group.nsid = group.nsid.or(Some(address.nsid));
        }
        group.keys.push(key);
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    for group in &mut groups {
        group.keys.sort_unstable();
    }
    groups.sort_by_key(|group| (group.instance, group.keys[0]));
    groups
}

/// Returns what a namespace lacks or has too many of; empty if it is whole. Stripes are checked as
/// a set: see [`torn_stripes`].
pub fn missing_or_extra(headers: &[(Address, &Header)]) -> Vec<String> {
    let mut found = Vec::new();
    let of = |wanted: SegmentType| headers.iter().filter(move |(address, _)| address.segment_type == wanted);
    let nsids: BTreeSet<u8> =
        headers.iter().filter(|(address, _)| address.segment_type.is_index()).map(|(address, _)| address.nsid).collect();
    if nsids.is_empty() {
        return found;
    }
    if nsids.len() > 1 {
        found.push(format!("its index exists under nsids {nsids:?}, expected one"));
        return found;
    }
    if of(SegmentType::PiBase).count() == 0 {
        found.push("base (pi-base, low 000) is missing".to_owned());
    }
    if of(SegmentType::PiTreex).count() == 0 {
        found.push("treex (pi-treex, low 001) is missing".to_owned());
    }
    let base_count = of(SegmentType::PiBase)
        .find_map(|(_, header)| if let Header::Base(base) = header { Some(base.stage_count) } else { None });
    check_stages("primary", "base", of(SegmentType::PiStage).map(|(address, _)| address.index), base_count, &mut found);
    let meta = of(SegmentType::SiMeta).next();
    let si_count = meta.and_then(|(_, header)| if let Header::SiMeta(meta) = header { Some(meta.stage_count) } else { None });
    if meta.is_none() && of(SegmentType::SiStage).count() > 0 {
        found.push("there are secondary stages, but si-meta (low 000) is missing".to_owned());
    } else if si_count == Some(0) {
        found.push("si-meta counts 0 secondary stages, expected at least 1".to_owned());
    }
    check_stages("secondary", "si-meta", of(SegmentType::SiStage).map(|(address, _)| address.index), si_count, &mut found);
    found
}

/// Checks that the stages are 0 to count − 1, each once.
pub fn check_stages(
    which: &str,
    counted_by: &str,
    stages: impl Iterator<Item = u16>,
    count: Option<u32>,
    found: &mut Vec<String>,
) {
    let Some(count) = count else { return };
    let there: BTreeSet<u32> = stages.map(u32::from).collect();
    let missing: Vec<u32> = (0..count.min(MAX_STAGES)).filter(|stage| !there.contains(stage)).collect();
    let extra: Vec<u32> = there.iter().copied().filter(|stage| *stage >= count).collect();
    if let Some(first) = missing.first() {
        found.push(format!(
            "{} of {count} {which} stages counted by {counted_by} missing, the first is stage {first} (low {:03x}){}",
            missing.len(),
            FIRST_STAGE + first,
            all_of(&missing)
        ));
    }
    if count > MAX_STAGES {
        found.push(format!("{counted_by} counts {count} {which} stages, expected at most {MAX_STAGES}"));
    }
    if let Some(first) = extra.first() {
        found.push(format!(
            "{} {which} stages more than the {count} counted by {counted_by}, the first is stage {first} (low {:03x}){}",
            extra.len(),
            FIRST_STAGE + first,
            all_of(&extra)
        ));
    }
}

/// Lists ascending numbers, if they are more than one: `; all are 0, 2 to 5`.
pub fn all_of(numbers: &[u32]) -> String {
    if numbers.len() > 1 { format!("; all are {}", sets::runs(numbers)) } else { String::new() }
}

/// Returns the stripes among these headers.
pub fn stripes_of<'h>(headers: &[(Address, &'h Header)]) -> Vec<(Address, &'h StripeHeader)> {
    let stripe = |(address, header): &(Address, &'h Header)| match header {
        Header::Stripe(stripe) => Some((*address, stripe)),
        _ => None,
    };
    headers.iter().filter_map(stripe).collect()
}

/// Returns the reasons why the stripes of a namespace are not a set with which a server would
/// start; empty if they are whole, or if there are none. `is_all` says that `headers` has every
/// stripe there is, so that their number is checked.
pub fn torn_stripes(headers: &[(Address, &Header)], name: &NamespaceName, is_all: bool) -> Vec<String> {
    let stripes = stripes_of(headers);
    let shown = |address: Address| address.key().map_or_else(|| format!("{address:?}"), |key| key.to_string());
    let members: Vec<Member<'_>> = stripes.iter().map(|(address, header)| Member { shown: shown(*address), header }).collect();
    let count = u32::try_from(stripes.len()).ok().filter(|_| is_all);
    let mut found = sets::faults("data stripe", &members, name, count);
    let nsids: BTreeSet<u8> = stripes.iter().map(|(address, _)| address.nsid).collect();
    let missing = sets::missing_numbers(&stripes.iter().map(|(address, _)| address.index).collect());
    if nsids.len() > 1 {
        found.push(format!("its data stripes exist under nsids {nsids:?}, expected one"));
    } else if is_all && !missing.is_empty() {
        found.push(format!("missing data stripes: {missing}"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(key: u32, name: Option<&str>) -> (Key, Address, Option<NamespaceName>) {
        (Key(key), Key(key).address().expect("an address"), name.and_then(NamespaceName::new))
    }

    #[test]
    fn stripes_follow_their_name_and_index_segments_their_base() {
        let segments = [
            named(0xae00_1000, Some("a")),
            named(0xae00_1001, None),
            named(0xae00_1100, None),
            named(0xa200_1000, None),
            named(0xad00_5000, Some("a")),
            named(0xad00_5001, Some("b")),
            named(0xae00_3100, None),
            named(0xad00_6000, None),
            named(0xae20_1000, Some("a")),
        ];
        let groups = group(segments.iter().map(|(key, address, name)| (*key, *address, name.as_ref())));
        let shown: Vec<(u8, Option<&str>, Option<u8>, usize)> =
            groups.iter().map(|g| (g.instance, g.name.as_ref().map(NamespaceName::as_str), g.nsid, g.keys.len())).collect();
        let expected = [
            (0, Some("a"), Some(1), 5),
            (0, Some("b"), None, 1),
            (0, None, None, 1),
            (0, None, Some(3), 1),
            (2, Some("a"), Some(1), 1),
        ];
        assert_eq!(shown, expected);
    }
}
