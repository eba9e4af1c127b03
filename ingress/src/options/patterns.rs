//! Lists of texts and expressions, as the keys of an nginx `map`.

use crate::annotations::values::{Refusal, list};
use regex::bytes::{Regex, RegexBuilder};
use std::collections::HashSet;

/// A list of texts to look for: whole texts without regard to case, `~` and `~*` for expressions.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    source: String,
    texts: HashSet<Vec<u8>>,
    expressions: Vec<Regex>,
}

impl PartialEq for Patterns {
    fn eq(&self, other: &Patterns) -> bool {
        self.source == other.source
    }
}

impl Patterns {
    /// Reads a list separated by commas.
    pub fn parse(value: &str) -> Result<Patterns, Refusal> {
        let mut patterns = Patterns { source: value.into(), ..Patterns::default() };
        for entry in list(value).map(unquoted).filter(|entry| !entry.is_empty()) {
            let (expression, insensitive) = match entry.strip_prefix('~') {
                Some(rest) => match rest.strip_prefix('*') {
                    Some(rest) => (rest, true),
                    None => (rest, false),
                },
                None => {
                    patterns.texts.insert(entry.to_ascii_lowercase().into_bytes());
                    continue;
                }
            };
            let built = RegexBuilder::new(expression).case_insensitive(insensitive).build();
            patterns.expressions.push(built.map_err(|_| {
                Refusal::closes(format!("{entry:?} is not an expression of the regex crate"))
            })?);
        }
        Ok(patterns)
    }

    /// Nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty() && self.expressions.is_empty()
    }

    /// Whether a text is in the list.
    pub fn contains(&self, text: &[u8]) -> bool {
        if self.is_empty() {
            return false;
        }
        let listed = !self.texts.is_empty() && self.texts.contains(&text.to_ascii_lowercase());
        listed || self.expressions.iter().any(|expression| expression.is_match(text))
    }
}

fn unquoted(entry: &str) -> &str {
    let inner = |quote: char| entry.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_whole_and_expressions_search() {
        let patterns = Patterns::parse(r#"Bad Bot, ~*curl/[0-9], "~^Wget""#).unwrap();
        for (text, listed) in [
            ("bad bot", true),
            ("bad bot 2", false),
            ("CURL/8.1", true),
            ("Wget/1", true),
            ("a wget", false),
            ("wget", false),
            ("", false),
        ] {
            assert_eq!(patterns.contains(text.as_bytes()), listed, "{text}");
        }
        assert!(!Patterns::default().contains(b""));
        assert!(matches!(Patterns::parse("~(").unwrap_err(), Refusal::Closes(_)));
    }
}
