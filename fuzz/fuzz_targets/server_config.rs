//! Any bytes are a configuration or are refused, with either kind of line ends. Nothing is returned
//! that is not in the file, and no device line is lost.

#![no_main]

use asmt_engine::layout::server_config::{DeviceLine, LineKind, Refused, ServerConfig, environment_file, parse};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeSet;

/// Without the numbers of lines, which a line before them changes.
fn unnumbered(result: Result<ServerConfig, Refused>) -> Option<ServerConfig> {
    result.ok().map(|found| ServerConfig { remarks: Vec::new(), templates: Vec::new(), ..found })
}

fuzz_target!(|bytes: &[u8]| {
    let result = parse(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else {
        // A comment alone may be of other bytes.
        assert!(result.is_err() || bytes.contains(&b'#'));
        return;
    };
    let assignments = environment_file(text);
    assert!(assignments.values().all(|value| value.len() <= text.len()));
    if !text.contains('\r') {
        assert_eq!(parse(text.replace('\n', "\r\n").as_bytes()), result, "line ends");
    }
    if !text.starts_with('\u{feff}') {
        assert_eq!(unnumbered(parse(format!("# {{\n{text}\n# }}").as_bytes())), unnumbered(result.clone()), "comments");
    }
    let found = match result {
        Ok(found) => found,
        Err(refused) => {
            assert!(!refused.text.is_empty() && refused.text.chars().count() < 256, "{refused}");
            assert!(refused.line.is_none_or(|line| (1..=text.split('\n').count()).contains(&line)), "{refused}");
            return;
        }
    };
    assert!((1..=32).contains(&found.namespaces.len()));
    assert!(found.remarks.len() <= 8, "{:?}", found.remarks);
    let devices = || found.namespaces.values().flat_map(|namespace| &namespace.devices);
    let types = found.namespaces.values().flat_map(|namespace| namespace.index_type.iter().chain(&namespace.sindex_type));
    let words = types.chain(&found.work_directory).chain(&found.logs).map(String::as_str);
    for word in words.chain(devices().flat_map(DeviceLine::paths)).chain(found.namespaces.keys().map(|name| name.as_str())) {
        assert!(!word.is_empty() && text.contains(word), "{word:?}");
        assert!(!word.contains(|char: char| char.is_whitespace() || char.is_control() || char == '#'), "{word:?}");
    }
    let mut of_lines = BTreeSet::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        if words.next() == Some("device") {
            of_lines.extend(words);
        }
    }
    let of_devices = devices().filter(|line| line.kind == LineKind::Device).flat_map(DeviceLine::paths);
    assert_eq!(of_devices.collect::<BTreeSet<_>>(), of_lines, "device lines");
});
