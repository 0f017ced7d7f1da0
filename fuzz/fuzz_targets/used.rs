//! Any text is a mark of use, or none; one that is read says the same when it is written.

#![no_main]

use asmt_engine::format::mark::{Identity, UsageMark};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(used) = UsageMark::parse(text) else { return };
    let again = serde_json::to_string(&used).expect("plain structures always serialise");
    assert_eq!(UsageMark::parse(&again).as_ref(), Ok(&used), "read back");
    let identity = Identity { made_ms: used.backup_ms, boot_id: used.backup_boot_id.clone(), files: None };
    if identity.boot_id.is_some() {
        let other = Identity { made_ms: used.backup_ms ^ 1, ..identity.clone() };
        assert!(used.is_of(&identity) && !used.is_of(&other));
    }
    let oldest = Identity { made_ms: 0, boot_id: None, files: None };
    assert_eq!(used.is_of(&oldest), used.uses().next().is_some());
});
