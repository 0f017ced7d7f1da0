//! Any text is a mark or an error; a mark is read back the same, and says of any backup whether it is its own.

#![no_main]

use asmt_engine::used::Used;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(used) = Used::parse(text) else { return };
    let again = serde_json::to_string(&used).expect("plain structures always serialise");
    assert_eq!(Used::parse(&again).as_ref(), Ok(&used), "read back");
    if let Some(boot_id) = used.backup_boot_id.as_deref() {
        assert!(used.is_of(used.backup_ms, Some(boot_id)) && !used.is_of(used.backup_ms ^ 1, Some(boot_id)));
    }
    assert_eq!(used.is_of(0, None), used.retired.is_some() || !used.restores.is_empty());
});
