//! What fuzzing does with this room: the headers and documents of a registry that lies, and the file
//! with the logins.

use crate::image::Reference;
use crate::registry::challenge::Challenge;
use crate::registry::credentials::login_in;
use crate::registry::document::Answer;
use crate::registry::download::public_url;
use crate::registry::fault::printable;
use crate::registry::host::Host;
use crate::registry::login::Server;
use crate::registry::manifest::checked;
use crate::registry::refusal::{Context, Subject};
use crate::registry::tags::{next_url, read_page};
use crate::registry::token;
use crate::registry::token::{Access, Scope};

/// Reads an answer: a status, the value of a header, and after a zero the body.
pub(crate) fn answer(data: &[u8]) {
    let Some((status, rest)) = data.split_first() else { return };
    let mut parts = rest.splitn(2, |byte| *byte == 0);
    let value = parts.next().unwrap_or_default();
    let body = parts.next().unwrap_or_default();
    if let Ok(text) = str::from_utf8(value) {
        if let Challenge::Bearer(bearer) = Challenge::parse([text, text].into_iter()) {
            assert!(bearer.realm.len() <= text.len());
        }
        let shown = public_url(text);
        assert!(!shown.contains('@') || !shown.contains("://") || !shown.contains('?'), "{shown}");
        drop(printable(text));
        drop(Server::parse(text));
    }
    let url = "https://registry.example/v2/a/tags/list";
    let status = u16::from(*status) + 300;
    let answer = Answer::of(url, status, body).with_headers(value);
    drop((answer.challenge(), answer.retry_after()));
    drop((token::read(&answer).is_ok(), read_page(&answer).is_ok(), next_url(&answer)));
    let repository = Reference::parse("registry.example/a").expect("it is one");
    let host = Host::of(&repository);
    for (access, had_token) in [(Access::Pull, false), (Access::Push, true)] {
        let context = Context { host: &host, repository: &repository, access, had_token };
        for subject in [Subject::Repository, Subject::Manifest(repository.clone())] {
            let said = context.refused(&subject, &answer).to_string();
            assert!(said.len() < 1000 && !said.contains(char::is_control), "{said:?}");
        }
    }
    drop(Scope::new(repository.path(), Access::Pull));
    drop(checked(&repository, answer));
}

/// Looks for logins in a file.
pub(crate) fn logins(data: &[u8]) {
    for name in ["registry.example/a", "debian"] {
        let host = Host::of(&Reference::parse(name).expect("it is one"));
        if let Err(error) = login_in(data, std::path::Path::new("config.json"), &host) {
            assert!(!error.to_string().is_empty());
        }
    }
}
