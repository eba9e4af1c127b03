//! Compiled expressions, each once however many paths have its text, and however many have the same after
//! the text they begin with.

use crate::matcher::expression::{Expression, build};
use regex::bytes::Regex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// The expressions in use.
#[derive(Debug, Default)]
pub struct Expressions {
    known: Known<Expression>,
    parts: Known<Regex>,
}

impl Expressions {
    /// The expression of a path, or what is wrong with it.
    pub fn get(&mut self, text: &str) -> Result<Arc<Expression>, String> {
        let parts = &mut self.parts;
        self.known.get(text, || {
            let compiled = Expression::compile(text, |part| parts.get(part, || build(part)));
            compiled.map(Arc::new)
        })
    }
}

/// Values that are remembered while somebody has them.
#[derive(Debug)]
struct Known<T> {
    values: HashMap<Box<str>, Weak<T>>,
    /// How many there may be before the unused ones are dropped.
    limit: usize,
}

impl<T> Default for Known<T> {
    fn default() -> Known<T> {
        Known { values: HashMap::new(), limit: 0 }
    }
}

impl<T> Known<T> {
    fn get(
        &mut self,
        text: &str,
        make: impl FnOnce() -> Result<Arc<T>, String>,
    ) -> Result<Arc<T>, String> {
        if let Some(known) = self.values.get(text).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let made = make()?;
        if self.values.len() >= self.limit {
            self.values.retain(|_, value| value.strong_count() > 0);
            self.limit = self.values.len() * 2 + 64;
        }
        self.values.insert(text.into(), Arc::downgrade(&made));
        Ok(made)
    }
}
