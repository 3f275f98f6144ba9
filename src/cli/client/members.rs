//! `member add|remove|update|promote|change` and `move-leader`.

use std::ffi::OsString;

use super::args::{Member, MemberAdd, MemberChange, MemberId, MemberUpdate};
use super::session::Question;
use super::{Client, Failure, known, reply};
use crate::api::{Header, Status};
use crate::base;
use crate::cli::Console;
use crate::cli::output;
use crate::cli::url::Url;

impl Client<'_> {
    pub(super) fn change_members(&self, change: &Member, console: &mut Console) -> Result<(), Failure> {
        match change {
            Member::List(_) => unreachable!("the list is a read of its own"),
            Member::Add(add) => self.add_member(add, console),
            Member::Remove(id) => {
                let id = member_id(&id.words)?;
                self.change_member(id, "REMOVE", &[], "removed from", console)
            }
            Member::Promote(id) => {
                let id = member_id(&id.words)?;
                self.change_member(id, "PROMOTE", &[], "promoted in", console)
            }
            Member::Update(MemberUpdate { words, peer_urls }) => {
                let id = member_id(words)?;
                self.change_member(id, "UPDATE", &urls(peer_urls)?, "updated in", console)
            }
            Member::Change(changes) => self.change_several(changes, console),
        }
    }

    fn change_member(
        &self,
        id: base::MemberId,
        verb: &str,
        urls: &[String],
        done: &str,
        console: &mut Console,
    ) -> Result<(), Failure> {
        let mut words = vec!["MEMBER".into(), verb.into(), id.to_string()];
        words.extend(urls.iter().cloned());
        output::refuse_members_format(self.options.format)?;
        let (header, reply) = self.ask(&question(words))?;
        let members = known(reply::members(&reply), "MEMBER")?;
        let line = format!("Member {id:16x} {done} cluster {:16x}\n", header.cluster);
        console.print(&output::changed_members(&header, &members, line, self.options.format));
        Ok(())
    }

    fn add_member(&self, add: &MemberAdd, console: &mut Console) -> Result<(), Failure> {
        let name = match add.words.as_slice() {
            [] => return Err(Failure::BadArguments("member name not provided".into())),
            [name] => name.to_string_lossy().into_owned(),
            _ => return Err(Failure::BadArguments("too many arguments".into())),
        };
        let urls = urls(&add.peer_urls)?;
        output::refuse_members_format(self.options.format)?;
        let mut words = vec!["MEMBER".to_string(), "ADD".into()];
        words.extend(urls.iter().cloned());
        if add.learner == Some(true) {
            words.push("LEARNER".into());
        }
        let (header, reply) = self.ask(&question(words))?;
        let (added, members) = known(reply::member_added(&reply), "MEMBER ADD")?;
        console.print(&output::member_added(&header, &added, &members, &name, self.options.format));
        Ok(())
    }

    fn change_several(&self, changes: &MemberChange, console: &mut Console) -> Result<(), Failure> {
        let MemberChange { add, add_learner, remove, promote } = changes;
        let mut words = vec!["MEMBER".to_string(), "CHANGE".into()];
        for (lists, learner) in [(add, false), (add_learner, true)] {
            for list in lists {
                words.push("ADD".into());
                words.extend(urls(list)?);
                words.extend(learner.then(|| "LEARNER".to_string()));
            }
        }
        for (ids, verb) in [(remove, "REMOVE"), (promote, "PROMOTE")] {
            for id in ids {
                words.extend([verb.to_string(), member_id(std::slice::from_ref(id))?.to_string()]);
            }
        }
        if words.len() == 2 {
            return Err(Failure::BadArguments(
                "no change: --add, --add-learner, --remove or --promote".into(),
            ));
        }
        output::refuse_members_format(self.options.format)?;
        let (header, reply) = self.ask(&question(words))?;
        let members = known(reply::members(&reply), "MEMBER CHANGE")?;
        let mut lines = format!("Members changed in cluster {:16x}\n", header.cluster);
        for list in add.iter().chain(add_learner) {
            let urls: Vec<&str> = list.split(',').collect();
            if let Some(added) = members.iter().find(|member| member.peer_urls == urls) {
                lines.push_str(&format!("Member {:16x} added with peer URLs {list}\n", added.id));
            }
        }
        console.print(&output::changed_members(&header, &members, lines, self.options.format));
        Ok(())
    }

    /// The request must reach the leader, so whoever leads is looked for among the endpoints first.
    pub(super) fn move_leader(&self, to: &MemberId, console: &mut Console) -> Result<(), Failure> {
        let [word] = to.words.as_slice() else {
            return Err(Failure::BadArguments("move-leader command needs 1 argument".into()));
        };
        let to = hex_id(word).map_err(Failure::BadArguments)?;
        let mut last_failure = None;
        for endpoint in &self.options.endpoints {
            let reply = match self.ask_now(endpoint, &Question::read(super::words(&["STATUS"]))) {
                Ok((_, reply)) => reply,
                Err(failure) => {
                    last_failure = Some(failure);
                    continue;
                }
            };
            let Status { member_id, leader, .. } = known(reply::status(&reply), "STATUS")?;
            if member_id != leader {
                continue;
            }
            let words = vec!["MOVELEADER".to_string(), to.to_string()];
            let (_, reply): (Header, _) = self.ask_now(endpoint, &question(words))?;
            known(reply::ok(&reply), "MOVELEADER")?;
            console.print(format!("Leadership transferred from {leader:x} to {to:x}\n").as_bytes());
            return Ok(());
        }
        let endpoints = self.options.endpoints.join(" ");
        let nobody = || Failure::BadArguments(format!("no leader endpoint given at [{endpoints}]"));
        Err(last_failure.unwrap_or_else(nobody))
    }
}

fn question(words: Vec<String>) -> Question {
    Question::write(words.into_iter().map(String::into_bytes).collect())
}

fn urls(list: &str) -> Result<Vec<String>, Failure> {
    if list.is_empty() {
        return Err(Failure::BadArguments("member peer urls not provided".into()));
    }
    let url = |text: &str| match Url::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        // The server would say that one of them is wrong, and not which.
        Err(why) => Err(Failure::Usage(format!("peer URL {why}"))),
    };
    list.split(',').map(url).collect()
}

fn member_id(words: &[OsString]) -> Result<base::MemberId, Failure> {
    let [word] = words else {
        return Err(Failure::BadArguments("member ID is not provided".into()));
    };
    hex_id(word)
        .map_err(|why| Failure::BadArguments(format!("bad member ID arg ({why}), expecting ID in Hex")))
}

/// Go's words, because etcdctl prints them.
fn hex_id(word: &OsString) -> Result<base::MemberId, String> {
    let text = word.to_string_lossy();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match base::MemberId::from_str_radix(&text, 16) {
        Ok(id) if digits => Ok(id),
        Err(_) if digits => Err(format!("strconv.ParseUint: parsing {text:?}: value out of range")),
        _ => Err(format!("strconv.ParseUint: parsing {text:?}: invalid syntax")),
    }
}
