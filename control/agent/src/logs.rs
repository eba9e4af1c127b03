//! Container logs in the CRI format: one line ([`line`], pure), reading with the options of
//! `kubectl logs` ([`read`]), and rotation ([`rotate`]).

pub(crate) mod line;
pub(crate) mod read;
pub(crate) mod rotate;
