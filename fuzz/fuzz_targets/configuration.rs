//! Any text is a configuration, whatever its lines' ends; it says nothing that does not stand in the text.

#![no_main]

use asmt_engine::configuration::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let found = parse(text);
    assert_eq!(parse(&text.replace('\n', "\r\n")), found, "line ends");
    assert_eq!(parse(&format!("# {{\n{text}\n# }}")), found, "comments");
    let namespaces = found.namespaces.values();
    let words =
        namespaces.flat_map(|namespace| namespace.devices.iter().chain(&namespace.index_type).chain(&namespace.sindex_type));
    for word in words.chain(&found.work_directory).chain(&found.logs) {
        assert!(!word.is_empty() && text.contains(word.as_str()), "{word:?}");
        assert!(!word.contains(|char: char| char.is_whitespace() || matches!(char, '{' | '}' | '#')), "{word:?}");
    }
    assert!(found.namespaces.keys().all(|name| text.contains(name.as_str())));
    assert!(found.oddities.len() <= 8, "{:?}", found.oddities);
});
