//! The inventory's JSON Schema, for editors: they complain while a file is written.
//!
//! It knows keys and the shapes of values; what only the whole file tells, `check` knows. Tests hold
//! it against the readers: what they take must pass it, and every key of it must be one of theirs.

/// JSON Schema (draft 7, which editors know) of `hosts.yaml`.
pub const SCHEMA: &str = include_str!("schema.json");

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use serde_json::Value;

    use super::super::load::parse;
    use super::super::tree::{self, FileId, Kind, Node};
    use super::*;

    /// A file as an editor's YAML reader has it: plain numbers and booleans are no texts.
    fn json(node: &Node<'_>) -> Value {
        match &node.kind {
            Kind::Scalar(scalar) if scalar.is_null() => Value::Null,
            Kind::Scalar(scalar) if scalar.plain => {
                let number = serde_json::from_str(&scalar.text).ok();
                let number = number.filter(|value: &Value| value.is_number() || value.is_boolean());
                number.unwrap_or_else(|| Value::from(scalar.text.as_ref()))
            }
            Kind::Scalar(scalar) => Value::from(scalar.text.as_ref()),
            Kind::Sequence(items) => items.iter().map(json).collect(),
            Kind::Mapping(entries) => entries
                .iter()
                .map(|entry| (entry.key.text.to_string(), json(&entry.node)))
                .collect(),
            Kind::Refused => Value::Null,
        }
    }

    fn schema() -> Value {
        serde_json::from_str(SCHEMA).unwrap()
    }

    /// What the schema has against a text; `None`: it is no YAML.
    fn faults(text: &str) -> Option<Vec<String>> {
        let root = tree::parse(FileId::default(), text, &mut Default::default())?;
        let validator = jsonschema::draft7::new(&schema()).unwrap();
        let faults = validator
            .iter_errors(&json(&root))
            .map(|fault| format!("{}: {fault}", fault.instance_path()))
            .collect();
        Some(faults)
    }

    fn texts(directory: &str) -> Vec<(String, String)> {
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(directory);
        let files = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let yaml = files.filter(|path| path.extension().is_some_and(|end| end == "yaml"));
        yaml.map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect()
    }

    #[test]
    fn what_is_valid_passes_the_schema() {
        let mut texts = [texts("tests/inventories/valid"), texts(".")].concat();
        texts.extend(self::texts("tests/inventories/several/good"));
        assert!(texts.len() > 8);
        for (name, text) in texts {
            assert_eq!(faults(&text).unwrap(), [] as [String; 0], "{name}");
        }
    }

    /// What is wrong with these, only the whole file tells.
    const FINE_BY_THEMSELVES: &[&str] = &[
        "duplicates.yaml",
        "far-apart.yaml",
        "ranges.yaml",
        "two-documents.yaml",
    ];

    #[test]
    fn slips_of_keys_and_shapes_do_not() {
        let mut fine = Vec::new();
        for (name, text) in texts("tests/inventories/invalid") {
            if faults(&text).is_some_and(|faults| faults.is_empty()) {
                fine.push(name);
            }
        }
        fine.sort();
        assert_eq!(fine, FINE_BY_THEMSELVES);
    }

    /// The maps of the schema, and a file that has a key of such a map, with no value.
    const MAPS: &[(&str, &str)] = &[
        ("/properties", "KEY:"),
        ("/properties/server/properties", "server: {KEY: }"),
        (
            "/properties/server/properties/tls/properties",
            "server: {tls: {KEY: }}",
        ),
        ("/definitions/unknown/properties", "unknown: {KEY: }"),
        ("/definitions/network/properties", "networks: {a: {KEY: }}"),
        ("/definitions/profile/properties", "profiles: {a: {KEY: }}"),
        ("/definitions/host/properties", "hosts: {a: {KEY: }}"),
        (
            "/definitions/bridge/properties",
            "profiles: {a: {bridge: {KEY: }}}",
        ),
        (
            "/definitions/boot_bond/properties",
            "profiles: {a: {bridge: {bond: {KEY: }}}}",
        ),
        (
            "/definitions/interfaces/additionalProperties/properties",
            "profiles: {a: {interfaces: {b: {KEY: }}}}",
        ),
        (
            "/definitions/bond/properties",
            "profiles: {a: {interfaces: {b: {bond: {KEY: }}}}}",
        ),
        (
            "/definitions/root/properties",
            "profiles: {a: {root: {KEY: }}}",
        ),
        (
            "/definitions/image_pool/anyOf/1/properties",
            "profiles: {a: {image_pool: {KEY: }}}",
        ),
        (
            "/definitions/rescue/properties",
            "profiles: {a: {rescue: {KEY: }}}",
        ),
        (
            "/definitions/menu/anyOf/1/properties",
            "profiles: {a: {menu: {KEY: }}}",
        ),
        (
            "/definitions/menu/anyOf/1/properties/entries/additionalProperties/properties",
            "profiles: {a: {menu: {entries: {b: {KEY: }}}}}",
        ),
    ];

    /// Every key of the schema, asked of the readers by a file that has it with no value.
    #[test]
    fn every_key_of_the_schema_is_known_to_the_readers() {
        let schema = schema();
        let keys = |path: &str| -> Vec<String> {
            let properties = schema.pointer(path).and_then(Value::as_object);
            properties
                .unwrap_or_else(|| panic!("{path}"))
                .keys()
                .cloned()
                .collect()
        };
        let mut asked = 0;
        for (path, text) in MAPS {
            for key in keys(path) {
                let text = text.replace("KEY", &key);
                asked += 1;
                // Nothing below `networks:` may stand for all that is commented out.
                let Err(found) = parse("x", &text) else {
                    continue;
                };
                let mut codes = found.iter().map(|fault| fault.code);
                assert!(
                    codes.all(|code| code != "inventory::unknown_key"),
                    "{text}: {found}"
                );
            }
        }
        assert!(asked > 100, "{asked}");
    }
}
