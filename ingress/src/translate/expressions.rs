//! Compiled expressions, each once however many paths have its text.

use crate::matcher::expression::Expression;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// The expressions in use.
#[derive(Debug, Default)]
pub struct Expressions {
    known: HashMap<Box<str>, Weak<Expression>>,
    /// How many there may be before the unused ones are dropped.
    limit: usize,
}

impl Expressions {
    /// The expression of a path, or what is wrong with it.
    pub fn get(&mut self, text: &str) -> Result<Arc<Expression>, String> {
        if let Some(known) = self.known.get(text).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let compiled = Arc::new(Expression::compile(text)?);
        if self.known.len() >= self.limit {
            self.known.retain(|_, known| known.strong_count() > 0);
            self.limit = self.known.len() * 2 + 64;
        }
        self.known.insert(text.into(), Arc::downgrade(&compiled));
        Ok(compiled)
    }
}
