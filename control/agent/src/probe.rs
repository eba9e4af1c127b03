//! Probes: the state machine that turns single results into verdicts ([`machine`], pure), doing one
//! probe ([`attempt`]), and the tasks that repeat it for each running container ([`prober`]).

pub(crate) mod attempt;
pub(crate) mod machine;
pub(crate) mod prober;
