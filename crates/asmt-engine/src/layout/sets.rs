//! Sets of stripes and of storage devices: checks that a server would start with a set.
//!
//! At each start, a server gives one random to all members of a set, and counts the main devices
//! (or stripes) in each of them. At a clean stop it marks each as trusted. It does not start with
//! two randoms in a set, with a device of another namespace, or with an unknown header. It does not
//! use a member that is not marked as trusted.
//!
//! Promise: every fault of a set is found, each with the first member that shows it. Must never:
//! read a device or a segment.

use asmt_shm::{NamespaceName, STRIPE_MAGIC, STRIPE_VERSION, StripeHeader};
use std::collections::BTreeSet;

/// One member of a set of stripes or of devices, with the name that messages show.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// Path of a device or file, key of a stripe.
    pub shown: String,
    /// Its header.
    pub header: &'a StripeHeader,
}

/// Returns the reasons why a server would not start with a set; empty if the set is whole.
///
/// `kind` is the word for a member, such as "data stripe" or "storage device". `expected_count` is
/// the number of stripes or main devices that there are; `None` if that is unknown, and must not be
/// checked.
pub fn faults(kind: &str, members: &[Member<'_>], name: &NamespaceName, expected_count: Option<u32>) -> Vec<String> {
    let count = members.len();
    let mut found = Vec::new();
    // Reports a fault of some of the members, with the first of them.
    let mut some = |wrong: &[&Member<'_>], what: &dyn Fn(&StripeHeader) -> String| {
        if let Some(first) = wrong.first() {
            let more = if wrong.len() > 1 { format!(" ({} of {count} {kind}s)", wrong.len()) } else { String::new() };
            found.push(format!("{kind} {} {}{more}", first.shown, what(first.header)));
        }
    };
    let (with_magic, without): (Vec<&Member<'_>>, Vec<_>) =
        members.iter().partition(|member| member.header.magic == STRIPE_MAGIC);
    some(&without, &|header| format!("starts with {:016x}, expected {STRIPE_MAGIC:016x}", header.magic));
    let (known, unknown): (Vec<&Member<'_>>, Vec<_>) =
        with_magic.into_iter().partition(|member| member.header.version == STRIPE_VERSION);
    some(&unknown, &|header| format!("has header version {}, expected {STRIPE_VERSION}", header.version));
    // In an unknown header no other field means anything.
    let of = |is_wrong: &dyn Fn(&StripeHeader) -> bool| -> Vec<&Member<'_>> {
        known.iter().copied().filter(|member| is_wrong(member.header)).collect()
    };
    some(&of(&|header| header.name.as_ref() != Some(name)), &|header| match &header.name {
        Some(other) => format!("belongs to namespace '{other}', expected '{name}'"),
        None => format!("has no namespace name, expected '{name}'"),
    });
    some(&of(&|header| header.random == 0), &|_| "has random 0: no server has opened it".to_owned());
    some(&of(&|header| !header.is_trusted()), &|_| "is not marked as trusted: the server did not stop cleanly".to_owned());
    if let Some(count) = expected_count {
        some(&of(&|header| header.device_count != count), &|header| {
            format!("counts {} {kind}s, found {count}", header.device_count)
        });
    }
    let mut randoms = known.iter().filter(|member| member.header.random != 0);
    if let Some(first) = randoms.next()
        && let Some(other) = randoms.find(|member| member.header.random != first.header.random)
    {
        let (one, two) = (first.header.random, other.header.random);
        let shown = |member: &Member<'_>, random: u64| format!("{} has random {random:016x}", member.shown);
        found.push(format!("{kind}s belong to two sets: {}, {}", shown(first, one), shown(other, two)));
    }
    found
}

/// Returns the missing numbers from 0 to the highest: `1`, or `1 to 3, 5`; empty if none is
/// missing.
pub fn missing_numbers(there: &BTreeSet<u16>) -> String {
    let missing: Vec<u32> = match there.last() {
        Some(last) => (0..*last).filter(|number| !there.contains(number)).map(u32::from).collect(),
        None => Vec::new(),
    };
    runs(&missing)
}

/// Writes ascending numbers as text: `0, 2 to 5`.
pub fn runs(numbers: &[u32]) -> String {
    let runs = numbers.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
        [first, .., last] => format!("{first} to {last}"),
        alone => alone.iter().map(ToString::to_string).collect(),
    });
    runs.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> StripeHeader {
        StripeHeader {
            magic: STRIPE_MAGIC,
            version: STRIPE_VERSION,
            name: NamespaceName::new(text),
            device_count: 3,
            random: 0x7,
            flags: 1,
        }
    }

    fn faults_of(headers: &[StripeHeader], expected_count: Option<u32>) -> Vec<String> {
        let members: Vec<Member<'_>> =
            (1..).zip(headers).map(|(number, header)| Member { shown: format!("/dev/{number}"), header }).collect();
        faults("storage device", &members, &NamespaceName::new("test").expect("a name"), expected_count)
    }

    #[test]
    fn a_set_is_whole_or_each_fault_is_said_with_the_first_that_shows_it() {
        type Change = fn(&mut [StripeHeader]);
        let cases: &[(Change, &[&str])] = &[
            (|_| {}, &[]),
            // The first flag alone decides.
            (|set| set[1].flags = 0xff, &[]),
            (|set| set[1].magic = 7, &["storage device /dev/2 starts with 0000000000000007, expected 4349747275730322"]),
            // Nothing else is reported of an unknown header.
            (
                |set| set[0] = StripeHeader { magic: 0, version: 0, name: None, device_count: 0, random: 0, flags: 0 },
                &["storage device /dev/1 starts with 0000000000000000, expected 4349747275730322"],
            ),
            (
                |set| (set[2].version, set[2].random, set[2].flags) = (5, 8, 0),
                &["storage device /dev/3 has header version 5, expected 4"],
            ),
            (
                |set| set[1].name = NamespaceName::new("other"),
                &["storage device /dev/2 belongs to namespace 'other', expected 'test'"],
            ),
            (|set| set[1].name = None, &["storage device /dev/2 has no namespace name, expected 'test'"]),
            (|set| set[1].random = 0, &["storage device /dev/2 has random 0: no server has opened it"]),
            (
                |set| set[1].random = 8,
                &["storage devices belong to two sets: /dev/1 has random 0000000000000007, /dev/2 has random 0000000000000008"],
            ),
            (
                |set| (set[0].random, set[2].random) = (0, 1 << 32 | 7),
                &[
                    "storage device /dev/1 has random 0: no server has opened it",
                    "storage devices belong to two sets: /dev/2 has random 0000000000000007, /dev/3 has random 0000000100000007",
                ],
            ),
            (
                |set| (set[1].flags, set[2].flags) = (0xfe, 0),
                &["storage device /dev/2 is not marked as trusted: the server did not stop cleanly (2 of 3 storage devices)"],
            ),
            (|set| set[2].device_count = 4, &["storage device /dev/3 counts 4 storage devices, found 3"]),
        ];
        for (change, expected) in cases {
            let mut set = [header("test"), header("test"), header("test")];
            change(&mut set);
            assert_eq!(faults_of(&set, Some(3)), *expected);
        }
        assert_eq!(faults_of(&[header("test")], None), [""; 0], "the number is not checked");
        assert_eq!(faults_of(&[header("test")], Some(1)), ["storage device /dev/1 counts 3 storage devices, found 1"]);
        assert_eq!(faults_of(&[], Some(1)), [""; 0]);
    }

    /// Sets that a server wrote: main devices, and shadows that are not counted.
    #[test]
    fn a_set_that_a_server_wrote_is_whole_once_it_has_stopped() {
        let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../__test__/fixtures/server");
        let written = |case: &str| -> Vec<StripeHeader> {
            let entries = std::fs::read_dir(fixtures.join(case)).expect("a case");
            let bytes = entries.map(|entry| std::fs::read(entry.expect("an entry").path()).expect("a header"));
            bytes.map(|bytes| StripeHeader::parse(&bytes).expect("a header")).collect()
        };
        for case in ["file-2-clean-stop", "dev-2-clean-stop"] {
            assert_eq!(faults_of(&written(case), Some(2)), [""; 0], "{case}");
        }
        let [running] = faults_of(&written("file-4-sigkill"), Some(2)).try_into().expect("one fault");
        assert!(running.contains("is not marked as trusted"), "{running}");
        let both = [written("file-2-clean-stop"), written("dev-2-clean-stop")].concat();
        assert!(faults_of(&both, Some(2)).iter().all(|fault| fault.contains("belong to two sets")), "nothing else is wrong");
        assert!(faults_of(&written("blank"), None)[0].contains("starts with 0000000000000000"));
    }

    #[test]
    fn numbers_that_are_missing_are_shown_in_runs() {
        for (there, expected) in
            [(&[] as &[u16], ""), (&[0], ""), (&[0, 1, 2], ""), (&[1], "0"), (&[0, 2], "1"), (&[2, 6, 8], "0 to 1, 3 to 5, 7")]
        {
            assert_eq!(missing_numbers(&there.iter().copied().collect()), expected, "{there:?}");
        }
        assert_eq!((runs(&[]), runs(&[4]), runs(&[0, 2, 3])), (String::new(), "4".to_owned(), "0, 2 to 3".to_owned()));
    }
}
