//! What load balancers, kubelets and operators ask: `/health`, and `/livez` and `/readyz` with their checks.
//!
//! Paths, parameters and texts are etcd's (`/health` as of 3.5, the others as of 3.5.11), because what reads them was
//! written for those. `/health` answers for the cluster as this member sees it: no alarm, a leader, a linearizable
//! read. `/livez` asks whether restarting this process would help, so neither a full disk nor a missing quorum fails
//! it; `/readyz`, whether it should be sent requests.
//!
//! A question goes to the node like any other call. Where the first answer decides, the second is not asked for.

use bytes::Bytes;

use super::Counters;
use super::response::Response;
use super::target::Target;
use crate::api::{AlarmKind, Body, Fault, Range, Request, Span, Status};

/// What the node is asked for the sake of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Status,
    Metrics,
    /// Can this member's state be read?
    LocalRead,
    /// The same, as of now: a quorum confirms it.
    Read,
}

impl Question {
    pub(super) fn request(self) -> Request {
        // One descent, whatever the store holds. Whether the key is there does not matter.
        let key = Bytes::from_static(b"health");
        match self {
            Question::Status => Request::Status,
            Question::Metrics => Request::Metrics,
            Question::LocalRead => {
                let range = Range::new(Span::Key(key));
                Request::Range(Range { serializable: true, count_only: true, ..range })
            }
            Question::Read => Request::Exists { keys: vec![key] },
        }
    }
}

/// A request for `/health`.
#[derive(Debug)]
pub(super) struct Health {
    /// Names of alarms that do not count.
    excluded: Vec<String>,
    /// Neither the leader nor a quorum count.
    serializable: bool,
    /// None: healthy. Some: why not.
    verdict: Option<Option<String>>,
    next: Option<Question>,
}

impl Health {
    pub(super) fn new(target: &Target) -> Health {
        Health {
            excluded: excluded(target),
            serializable: target.values("serializable").next() == Some("true"),
            verdict: None,
            next: Some(Question::Status),
        }
    }

    pub(super) fn next(&mut self) -> Option<Question> {
        self.next.take()
    }

    pub(super) fn answer(&mut self, question: Question, answer: Result<Body, Fault>) {
        self.verdict = match (question, answer) {
            (_, Err(fault)) => Some(Some(format!("RANGE ERROR:{}", fault.text))),
            (Question::Status, Ok(Body::Status(status))) => self.find_fault(&status).map(Some),
            (_, Ok(_)) => Some(None),
        };
        if question == Question::Status && self.verdict.is_none() {
            self.next = Some(if self.serializable { Question::LocalRead } else { Question::Read });
        }
    }

    fn find_fault(&self, status: &Status) -> Option<String> {
        if let Some(kind) = standing_alarm(status, &self.excluded) {
            return Some(format!("ALARM {}", kind.word()));
        }
        (status.leader == 0 && !self.serializable).then(|| "RAFT NO LEADER".to_string())
    }

    pub(super) fn response(&self, counters: &Counters) -> Option<Response> {
        let reason = self.verdict.as_ref()?;
        counters.count_health(reason.is_none());
        Some(match reason {
            None => Response::text(200, r#"{"health":"true","reason":""}"#),
            Some(reason) => {
                // Reasons are texts of our own: no quote, no backslash, no line end in any of them.
                let reason: String =
                    reason.chars().filter(|c| !c.is_control() && !"\"\\".contains(*c)).collect();
                Response::error(503, &format!(r#"{{"health":"false","reason":"{reason}"}}"#))
            }
        })
    }
}

fn excluded(target: &Target) -> Vec<String> {
    target.values("exclude").filter(|name| !name.is_empty()).map(str::to_string).collect()
}

/// The first alarm that counts.
fn standing_alarm(status: &Status, excluded: &[String]) -> Option<AlarmKind> {
    let mut kinds = status.alarms.iter().map(|alarm| alarm.kind);
    kinds.find(|kind| !excluded.iter().any(|name| name == kind.word()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    pub(super) const ALL: [Check; 4] =
        [Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

    pub(super) fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }

    fn question(self) -> Question {
        match self {
            Check::DataCorruption | Check::NonLearner => Question::Status,
            Check::SerializableRead => Question::LocalRead,
            Check::LinearizableRead => Question::Read,
        }
    }

    fn judge(self, answer: &Result<Body, Fault>) -> Result<(), String> {
        let body = answer.as_ref().map_err(|fault| fault.text.clone())?;
        let Body::Status(status) = body else { return Ok(()) };
        let is_corrupt = status.alarms.iter().any(|alarm| alarm.kind == AlarmKind::Corrupt);
        match self {
            Check::DataCorruption if is_corrupt => Err("alarm activated: CORRUPT".into()),
            Check::NonLearner if status.learner => Err("not supported for learner".into()),
            _ => Ok(()),
        }
    }
}

/// Which of the two pages with checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    Livez,
    Readyz,
}

impl Probe {
    pub(super) const ALL: [Probe; 2] = [Probe::Livez, Probe::Readyz];

    pub(super) fn name(self) -> &'static str {
        match self {
            Probe::Livez => "livez",
            Probe::Readyz => "readyz",
        }
    }

    pub(super) fn checks(self) -> &'static [Check] {
        match self {
            Probe::Livez => &[Check::SerializableRead],
            Probe::Readyz => &Check::ALL,
        }
    }
}

/// A request for one of them.
#[derive(Debug)]
pub(super) struct Checks {
    probe: Probe,
    verbose: bool,
    /// Each with what came of it.
    checks: Vec<(Check, Option<Result<(), String>>)>,
    unasked: Vec<Question>,
}

impl Checks {
    /// `only`: the path named one of them.
    pub(super) fn new(probe: Probe, only: Option<Check>, target: &Target) -> Checks {
        let excluded = excluded(target);
        let counts = |check: &Check| match only {
            Some(only) => *check == only,
            None => !excluded.iter().any(|name| name == check.name()),
        };
        let checks: Vec<Check> = probe.checks().iter().copied().filter(counts).collect();
        let mut unasked: Vec<Question> = Vec::new();
        for question in checks.iter().map(|check| check.question()) {
            if !unasked.contains(&question) {
                unasked.push(question);
            }
        }
        let checks = checks.into_iter().map(|check| (check, None)).collect();
        Checks { probe, verbose: target.has("verbose"), checks, unasked }
    }

    pub(super) fn next(&mut self) -> Option<Question> {
        self.unasked.pop()
    }

    pub(super) fn answer(&mut self, question: Question, answer: &Result<Body, Fault>) {
        for (check, outcome) in self.checks.iter_mut().filter(|(check, _)| check.question() == question) {
            *outcome = Some(check.judge(answer));
        }
    }

    pub(super) fn response(&self, counters: &Counters) -> Option<Response> {
        if self.checks.iter().any(|(_, outcome)| outcome.is_none()) {
            return None;
        }
        let mut lines = String::new();
        let mut healthy = true;
        for (check, outcome) in &self.checks {
            let good = matches!(outcome, Some(Ok(())));
            counters.count_check(self.probe, *check, good);
            healthy &= good;
            lines += &match outcome {
                Some(Err(why)) => format!("[-]{} failed: {why}\n", check.name()),
                _ => format!("[+]{} ok\n", check.name()),
            };
        }
        Some(match (healthy, self.verbose) {
            (false, _) => Response::error(503, &lines),
            (true, true) => Response::text(200, lines + "ok\n").nosniff(),
            (true, false) => Response::text(200, "ok\n").nosniff(),
        })
    }
}
