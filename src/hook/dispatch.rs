//! Which hook, which state: from git's arguments and stdin to the function that answers.

use std::cell::OnceCell;
use std::ffi::OsStr;
use std::io::{IsTerminal, Read};

use anyhow::Context;

use crate::git::{Git, openable};
use crate::hook::call::{Call, Event, NoCaller};
use crate::hook::nested::StartedBy;
use crate::hook::{Environment, Reply, nested, post_checkout, recover};
use crate::observe::payload::Payload;
use crate::process::owner;
use crate::run::{guard, mark};
use crate::state::marker::{Entry, Listing, State};
use crate::state::{StateDir, Wait, told};
use crate::util::text::shown;
use crate::wal::Log;

/// Room for what git sends in nearly all calls, so that it is read at once. The allocator has such a piece at hand.
const USUAL_INPUT: usize = 512;

/// Runs the hook `name` with git's arguments and `input` (git's stdin). In a hook or a state that is not ours git goes on.
pub(crate) fn run(name: &OsStr, args: &[String], input: &mut dyn Read, environment: &Environment) -> Reply {
    let event = match name.to_str() {
        Some("reference-transaction") => Event::of_state(args.first().map_or("", String::as_str)),
        Some("pre-receive") => Some(Event::Receiving),
        Some("post-checkout") => return post_checkout::run(args, environment),
        _ => None,
    };
    event.map_or_else(Reply::go, |event| answer(event, input, environment))
}

/// Called with `JIN_TXN=off`: git goes on. Within a run that is noted, because the log will not have what git does.
pub(crate) fn look_away(environment: &Environment) {
    let Ok(repo) = environment.repository() else { return };
    let state = StateDir::of(&repo);
    let run = environment.runs.as_deref().and_then(|runs| mark::named_in(runs, &state));
    if let Some(id) = run.filter(|id| Entry::new(state.path(), State::InProgress, *id).path.exists())
        && guard::note(&state, id).is_err()
    {
        // Then the refs that it moves count as somebody else's.
    }
}

fn answer(event: Event, input: &mut dyn Read, environment: &Environment) -> Reply {
    let mut bytes = Vec::with_capacity(USUAL_INPUT);
    if let Err(e) = input.read_to_end(&mut bytes) {
        let error = anyhow::Error::new(e).context("cannot read what git sends to the hook");
        return failed(event.can_veto(), &error, environment);
    }
    match handle(event, &bytes, environment) {
        Ok(reply) => reply,
        // After a veto git calls `aborted`, which meets the same trouble: everything has been said.
        Err(_) if event == Event::Aborted => Reply::go(),
        // Whoever calls without being found has the change done: that he is not known is no reason to refuse it.
        Err(error) => {
            let may_refuse = event.can_veto() && !Payload::parse(&bytes).is_of_notes() && !error.is::<NoCaller>();
            failed(may_refuse, &error, environment)
        }
    }
}

fn handle(event: Event, input: &[u8], environment: &Environment) -> anyhow::Result<Reply> {
    let payload = Payload::parse(input);
    if payload.count() == 0 {
        return Ok(Reply::go());
    }
    let repo = match environment.repository() {
        Err(_) if environment.repository_is_being_made() => return Ok(Reply::go()),
        found => found?,
    };
    let state = StateDir::of(&repo);
    if !state.exists() {
        state.create().with_context(|| format!("cannot create {}", shown(state.path())))?;
        // A new log knows of nothing before: there is nothing to look after.
        Log::new(&state, &owner::boot_id()?, Wait::AsConfigured).open()?;
        environment.notes.iter().for_each(|notes| notes.remember(&state));
    }
    let read = || Listing::read(state.path()).with_context(|| format!("cannot read {}", shown(state.path())));
    let mut listing = read()?;
    let mut told = Vec::new();
    if !state.is_known_by(listing.verified.as_deref())? {
        // Before any of its markers is believed.
        told = recover::set_copy_aside(&repo, environment)?;
        listing = read()?;
    }
    match (nested::started_by(environment, &listing)?, event) {
        (StartedBy::Ours, _) => return Ok(Reply::go()),
        (StartedBy::OursThatDied, Event::Preparing | Event::Prepared) => {
            let line = "jin-txn: nothing is changed: the transaction was killed for which this git was started";
            return Ok(Reply::veto(vec![line.to_owned()]));
        }
        _ => {}
    }
    let call = Call { event, environment, repo, state, payload, listing, git: OnceCell::new() };
    let mut reply = match event {
        Event::Receiving => call.receiving(),
        Event::Preparing => call.preparing(),
        Event::Prepared => call.prepared().inspect_err(|_| call.testify_as_orphan()),
        Event::Committed => call.committed(),
        Event::Aborted => call.aborted(),
    }?;
    if call.listing.untold && std::io::stderr().is_terminal() {
        told.extend(told::take(call.state.path()));
    }
    reply.messages.splice(0..0, told);
    Ok(reply)
}

/// The log or the payload cannot be had: before the change that means no change, after it a warning.
fn failed(vetoes: bool, error: &anyhow::Error, environment: &Environment) -> Reply {
    let mut messages = vec![format!("jin-txn: error: {error:#}")];
    if vetoes && !advice_only(environment) {
        messages.push("jin-txn: hint: this change was refused; to work without protection: JIN_TXN=off git ...".into());
        return Reply::veto(messages);
    }
    messages.push("jin-txn: hint: this change is not protected; `git txn status` says more".into());
    Reply::go_saying(messages)
}

/// `jin.onError=warn`. Asked only when something failed already.
fn advice_only(environment: &Environment) -> bool {
    let Ok(repo) = environment.repository() else { return false };
    if openable::require_start(&repo).is_err() {
        return false;
    }
    let setting = Git::new(&environment.git_program).at(&repo.git_dir).config("jin.onError");
    setting.is_ok_and(|value| value.as_deref() == Some("warn"))
}
