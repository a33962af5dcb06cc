//! What a bad answer means: statuses and error documents become errors that name the thing.
//!
//! The same status means different things for different requests, and 401 means "log in" or "you
//! may not" depending on what was sent along. Those decisions are here and nowhere else.

use std::time::Duration;

use serde::Deserialize;

use crate::digest::Digest;
use crate::image::Reference;
use crate::registry::Error;
use crate::registry::document::Answer;
use crate::registry::fault::printable;
use crate::registry::host::Host;
use crate::registry::token::Access;

const LONGEST_MESSAGE: usize = 300;
const NAME_UNKNOWN: &str = "NAME_UNKNOWN";

/// What a request was about.
#[derive(Clone, Debug)]
pub(super) enum Subject {
    /// A manifest, by the reference of it.
    Manifest(Reference),
    /// A blob.
    Blob(Digest),
    /// The repository itself.
    Repository,
    /// A token for the repository.
    Token,
}

/// Who asked whom for what.
#[derive(Clone, Debug)]
pub(super) struct Context<'a> {
    /// The registry.
    pub(super) host: &'a Host,
    /// The repository.
    pub(super) repository: &'a Reference,
    /// What was to be done.
    pub(super) access: Access,
    /// Whether a token was sent along: then a 401 means that it does not suffice.
    pub(super) had_token: bool,
}

/// A bad answer.
struct Refusal {
    url: String,
    status: u16,
    code: String,
    message: String,
    retry_after: Option<Duration>,
}

impl Context<'_> {
    /// Returns what a bad answer to a request about `subject` means.
    pub(super) fn refused(&self, subject: &Subject, answer: &Answer) -> Error {
        let complaint = Complaint::read(&answer.body);
        self.error(
            subject,
            Refusal {
                url: answer.url.clone(),
                status: answer.status,
                code: complaint.code,
                message: complaint.message,
                retry_after: answer.retry_after(),
            },
        )
    }

    /// Returns the error for a registry that breaks the rules.
    pub(super) fn protocol(&self, reason: String) -> Error {
        Error::Protocol { host: self.host.address().to_owned(), reason }
    }

    fn error(&self, subject: &Subject, refusal: Refusal) -> Error {
        let Refusal { url, status, code, message, retry_after } = refusal;
        match status {
            401 if !self.had_token => self.unauthorized(&message),
            401 | 403 => self.denied(),
            404 if !matches!(subject, Subject::Token) => self.not_found(subject, &code, &message),
            429 => {
                let message = or(message, "too many requests");
                let host = self.host.address().to_owned();
                Error::TooManyRequests { host, message, retry_after }
            }
            _ => {
                let (url, message) = (printable(&url), or(message, "no explanation"));
                Error::Status { url, status, message }
            }
        }
    }

    fn unauthorized(&self, message: &str) -> Error {
        Error::Unauthorized {
            host: self.host.address().to_owned(),
            repository: self.repository.familiar_name(),
            message: or(message.to_owned(), "authentication required"),
            login: self.host.login_command(),
        }
    }

    fn denied(&self) -> Error {
        let repository = self.repository.familiar_name();
        match self.access {
            Access::Pull => Error::PullDenied { repository },
            Access::Push => Error::PushDenied { host: self.host.address().to_owned(), repository },
        }
    }

    fn not_found(&self, subject: &Subject, code: &str, message: &str) -> Error {
        let repository = self.repository.familiar_name();
        match subject {
            Subject::Manifest(reference) if code != NAME_UNKNOWN => Error::ManifestUnknown {
                reference: reference.familiar(),
                message: or(message.to_owned(), "manifest unknown"),
            },
            Subject::Blob(digest) if code != NAME_UNKNOWN => {
                Error::BlobUnknown { repository, digest: *digest }
            }
            _ => {
                let message = or(message.to_owned(), "repository name not known to registry");
                Error::RepositoryUnknown { repository, message }
            }
        }
    }
}

/// What a registry or a token server says of an error.
#[derive(Default)]
struct Complaint {
    code: String,
    message: String,
}

/// The error document of the distribution specification, and what token servers write.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    errors: Vec<Item>,
    details: Option<String>,
    message: Option<String>,
    error_description: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Complaint {
    fn read(body: &[u8]) -> Self {
        let Ok(document) = serde_json::from_slice::<Document>(body) else {
            return Self { message: first_line(body), code: String::new() };
        };
        if let Some(item) = document.errors.into_iter().next() {
            return Self { code: item.code, message: sober(&item.message) };
        }
        let message = document.details.or(document.message).or(document.error_description);
        Self { message: sober(&message.unwrap_or_default()), code: String::new() }
    }
}

/// Returns the beginning of an explanation that is plain text; a web page explains nothing.
fn first_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.trim().lines().next().unwrap_or_default();
    if line.starts_with('<') {
        return String::new();
    }
    sober(line)
}

/// Returns the beginning of what a server says, without what would move the cursor of a terminal.
pub(super) fn sober(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(LONGEST_MESSAGE).collect()
}

fn or(message: String, default: &str) -> String {
    if message.is_empty() { default.to_owned() } else { message }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &str = "a.io/team/app:v1";
    const DENIED: &str = "denied: requested access to the resource is denied";

    fn reference() -> Reference {
        Reference::parse(IMAGE).expect("valid")
    }

    fn error(
        access: Access,
        had_token: bool,
        subject: &Subject,
        status: u16,
        body: &str,
    ) -> String {
        let (repository, host) = (reference(), Host::of(&reference()));
        let context = Context { host: &host, repository: &repository, access, had_token };
        let answer = Answer::of("http://x/y?secret=z", status, body.as_bytes());
        context.refused(subject, &answer).to_string()
    }

    fn document(code: &str, message: &str) -> String {
        format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#)
    }

    #[test]
    fn a_manifest_that_cannot_be_had_has_the_text_of_docker() {
        let unknown = format!("manifest for {IMAGE} not found: manifest unknown: manifest unknown");
        let x = "received unexpected HTTP status:";
        let table = [
            (404, document("MANIFEST_UNKNOWN", "manifest unknown"), unknown.as_str()),
            (404, String::new(), &unknown),
            (
                404,
                document("NAME_UNKNOWN", "x"),
                "repository a.io/team/app not found: name unknown: x",
            ),
            (429, document("TOOMANYREQUESTS", "slow"), "toomanyrequests: slow (registry a.io)"),
            (500, "it broke\nat line 1".into(), &format!("{x} 500 from http://x/y: it broke")),
            (502, "<html>".into(), &format!("{x} 502 from http://x/y: no explanation")),
            (400, r#"{"details": "why"}"#.into(), &format!("{x} 400 from http://x/y: why")),
        ];
        for (status, body, expected) in table {
            let subject = Subject::Manifest(reference());
            assert_eq!(error(Access::Pull, false, &subject, status, &body), expected);
        }
    }

    #[test]
    fn a_refusal_means_log_in_or_you_may_not() {
        let log_in =
            "unauthorized: authentication required: run 'strata login a.io' to use a.io/team/app";
        let no_pull = format!(
            "pull access denied for a.io/team/app, repository does not exist or may require \
             'docker login': {DENIED}"
        );
        // (access, whether a token was sent, status, text)
        let table = [
            (Access::Pull, false, 401, log_in),
            (Access::Push, false, 401, log_in),
            (Access::Pull, true, 401, &no_pull),
            (Access::Pull, false, 403, &no_pull),
            (Access::Push, true, 401, DENIED),
            (Access::Push, false, 403, DENIED),
        ];
        for (access, had_token, status, expected) in table {
            let subject = Subject::Blob(Digest::of(b""));
            assert_eq!(error(access, had_token, &subject, status, ""), expected, "{status}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let digest = Digest::of(b"");
        let blob = format!("blob {digest} not found in a.io/team/app: blob unknown to registry");
        let table = [
            (Subject::Blob(digest), blob.as_str()),
            (Subject::Repository, "repository a.io/team/app not found: name unknown: x"),
            (Subject::Token, "received unexpected HTTP status: 404 from http://x/y: x"),
        ];
        for (subject, expected) in table {
            assert_eq!(error(Access::Pull, false, &subject, 404, "x"), expected);
        }
    }
}
