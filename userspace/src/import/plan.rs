//! What an import would add: each token once, with who found it and where.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::{self, Display},
};

use super::{Finding, Secret, Unfit, fit};
use crate::denylist::{Identity, TokenId};

/// An entry that is to be added.
#[derive(Debug)]
pub struct Addition {
    /// Of the token.
    pub identity: Identity,
    /// The token.
    pub secret: Secret,
    /// Who found it; one or more.
    pub tools: Vec<&'static str>,
    /// What it is, as the first of them says; may be empty.
    pub rule: String,
    /// Where it was found first; may be empty.
    pub place: String,
}

/// A finding that is left out.
#[derive(Debug)]
pub struct Refusal {
    /// Why.
    pub why: Unfit,
    /// Who found it.
    pub tool: &'static str,
    /// What it is; may be empty.
    pub rule: String,
    /// Where it was found; may be empty.
    pub place: String,
}

/// What becomes of the findings of all reports.
#[derive(Debug, Default)]
pub struct Plan {
    /// In the order in which they were found.
    pub additions: Vec<Addition>,
    /// What is left out.
    pub refusals: Vec<Refusal>,
    /// Findings of a token that another one gave already.
    pub duplicates: usize,
}

impl Plan {
    /// Sorts findings into additions and refusals.
    #[must_use]
    pub fn of(findings: Vec<Finding>, min_length: u64, force: bool) -> Self {
        let mut plan = Self::default();
        let mut known: HashMap<TokenId, usize> = HashMap::new();
        for mut finding in findings {
            finding.forget_secret_in_names();
            let fitness = fit(&finding, min_length, force);
            let Finding {
                secret,
                tool,
                rule,
                place,
                ..
            } = finding;
            match (fitness, secret) {
                (Ok(identity), Some(secret)) => {
                    let addition = Addition {
                        identity,
                        secret,
                        tools: vec![tool],
                        rule,
                        place,
                    };
                    plan.add(addition, &mut known);
                }
                (result, _) => plan.refusals.push(Refusal {
                    why: result.err().unwrap_or(Unfit::Withheld),
                    tool,
                    rule,
                    place,
                }),
            }
        }
        plan
    }

    fn add(&mut self, addition: Addition, known: &mut HashMap<TokenId, usize>) {
        let next = self.additions.len();
        let at = *known.entry(addition.identity.id).or_insert(next);
        let Some(first) = self.additions.get_mut(at) else {
            self.additions.push(addition);
            return;
        };
        self.duplicates += 1;
        for tool in addition.tools {
            if !first.tools.contains(&tool) {
                first.tools.push(tool);
            }
        }
    }

    /// How many findings are left out, by reason.
    #[must_use]
    pub fn refused(&self) -> BTreeMap<Unfit, usize> {
        let mut counts = BTreeMap::new();
        for refusal in &self.refusals {
            *counts.entry(refusal.why).or_default() += 1;
        }
        counts
    }
}

impl Finding {
    /// Names of rules and places are shown and kept; a secret may stand in them, for instance in a URL.
    fn forget_secret_in_names(&mut self) {
        let Some(secret) = &self.secret else { return };
        let secret = secret.trim();
        if secret.is_empty() {
            return;
        }
        for name in [&mut self.rule, &mut self.place] {
            if name.contains(secret) {
                *name = name.replace(secret, "(the token)");
            }
        }
    }
}

impl Addition {
    /// `RULE in PLACE`, as far as known.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        match (self.rule.is_empty(), self.place.is_empty()) {
            (true, true) => None,
            (false, true) => Some(self.rule.clone()),
            (true, false) => Some(format!("in {}", self.place)),
            (false, false) => Some(format!("{} in {}", self.rule, self.place)),
        }
    }
}

/// One line of a dry run, columns separated by tabs; without the token.
impl Display for Addition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, tools) = (self.identity.id.short(), self.tools.join(","));
        write!(
            f,
            "add\t{id}\t{tools}\t{}\t{}",
            shown(&self.rule),
            shown(&self.place)
        )
    }
}

impl Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (why, tool) = (self.why, self.tool);
        write!(
            f,
            "refuse\t{why}\t{tool}\t{}\t{}",
            shown(&self.rule),
            shown(&self.place)
        )
    }
}

/// Reports come from elsewhere: nothing in them may steer a terminal.
fn shown(text: &str) -> String {
    if text.is_empty() {
        return "-".to_owned();
    }
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(tool: &'static str, secret: &str, place: &str) -> Finding {
        Finding {
            place: place.to_owned(),
            ..Finding::new(tool, Some(Secret::new(secret.to_owned())))
        }
    }

    #[test]
    fn a_token_is_added_once_whoever_found_it() {
        let token = "glpat-x8rKq2sT1vYw3zA5bC7d";
        let plan = Plan::of(
            vec![
                finding("gitleaks", token, "a.txt:1"),
                finding("trufflehog", token, "b.txt:2"),
                finding("gitleaks", token, "c.txt:3"),
                finding("gitleaks", "REDACTED", "d.txt:4"),
            ],
            8,
            false,
        );
        let [addition] = plan.additions.as_slice() else {
            panic!("{plan:?}")
        };
        assert_eq!(addition.tools, ["gitleaks", "trufflehog"]);
        assert_eq!(addition.reason().as_deref(), Some("in a.txt:1"));
        assert_eq!(plan.duplicates, 2);
        assert_eq!(plan.refused(), BTreeMap::from([(Unfit::Redacted, 1)]));
    }

    #[test]
    fn what_is_shown_holds_neither_the_token_nor_control_characters() {
        let token = "glpat-x8rKq2sT1vYw3zA5bC7d";
        let place = format!("https://h.example/\u{1b}[2J{token}/x");
        let plan = Plan::of(vec![finding("gitleaks", token, &place)], 8, false);
        let shown = format!("{} {plan:?}", plan.additions[0]);
        assert!(
            !shown.contains(token) && !plan.additions[0].to_string().contains('\u{1b}'),
            "{shown}"
        );
    }
}
