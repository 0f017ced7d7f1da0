//! Any name of a file is a segment's, a manifest's, a mark's, a run's or nobody's, and none leads
//! out of a directory.

#![no_main]

use asmt_engine::format::journal::published_name;
use asmt_engine::format::mark::{is_used_name, used_name};
use asmt_engine::format::run_id::RunId;
use asmt_engine::format::{file_name, instance_of_manifest_name, is_manifest_name, manifest_name, parse_file_name};
use asmt_shm::{Key, MAX_INSTANCE, NamespaceName};
use libfuzzer_sys::fuzz_target;

/// Most bytes of a file's name, on every file system in use.
const MAX_NAME_BYTES: usize = 255;

fuzz_target!(|text: &str| {
    if let Some((key, address, encoding)) = parse_file_name(text) {
        assert_eq!(file_name(key, encoding), text.to_ascii_lowercase());
        assert_eq!(address.key(), Some(key));
        assert!(!is_manifest_name(text) && !is_used_name(text));
    }
    if let Some(key) = Key::from_hex(text) {
        assert_eq!(key.to_string(), text.to_ascii_lowercase());
    }
    if let Some(run) = RunId::parse(text) {
        assert_eq!(RunId::parse(&run.to_string()).as_ref(), Some(&run));
    }
    if let Some(name) = NamespaceName::new(text) {
        for instance in 0..=MAX_INSTANCE {
            let (manifest, used) = (manifest_name(instance, &name), used_name(instance, &name));
            assert!(is_manifest_name(&manifest) && !is_used_name(&manifest) && is_used_name(&used) && !is_manifest_name(&used));
            assert_eq!(instance_of_manifest_name(&manifest), Some(instance));
            assert!([manifest, used].iter().all(|name| name.len() <= MAX_NAME_BYTES && !name.contains('/')));
        }
    }
    assert!(instance_of_manifest_name(text).is_none_or(|instance| instance <= MAX_INSTANCE));
    assert!(text.ends_with(published_name(text)));
});
