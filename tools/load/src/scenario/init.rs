//! The scenarios that the tool brings along, which are what `init` writes.

/// Name, and the commented file.
pub const SHIPPED: &[(&str, &str)] = &[
    ("chat", include_str!("../../scenarios/chat.toml")),
    ("login-storm", include_str!("../../scenarios/login-storm.toml")),
    ("idle", include_str!("../../scenarios/idle.toml")),
    ("muc-fanout", include_str!("../../scenarios/muc-fanout.toml")),
    ("presence", include_str!("../../scenarios/presence.toml")),
    ("archive", include_str!("../../scenarios/archive.toml")),
    ("resume", include_str!("../../scenarios/resume.toml")),
    ("service", include_str!("../../scenarios/service.toml")),
    ("federation", include_str!("../../scenarios/federation.toml")),
    ("federation-cut", include_str!("../../scenarios/federation-cut.toml")),
    ("federation-restart", include_str!("../../scenarios/federation-restart.toml")),
    ("mixed-day", include_str!("../../scenarios/mixed-day.toml")),
];

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
