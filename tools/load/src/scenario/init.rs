//! The scenarios that the tool brings along, which are what `init` writes.

/// Name, and the commented file.
pub const SHIPPED: &[(&str, &str)] = &[("chat", include_str!("../../scenarios/chat.toml"))];

/// The text of a shipped scenario.
pub fn template(name: &str) -> Option<&'static str> {
    SHIPPED.iter().find(|(shipped, _)| *shipped == name).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn every_shipped_scenario_is_without_fault() {
        for (name, text) in SHIPPED {
            let scenario = Scenario::read(text, name);
            assert!(scenario.is_ok(), "{name}: {:?}", scenario.err());
            assert!(scenario.is_ok_and(|scenario| scenario.name == *name));
        }
    }
}
