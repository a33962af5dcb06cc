//! Registries that lie, stall, and lead elsewhere: what reaches whom, and what is said of it.

use std::io::Read;
use std::time::Duration;

use crate::digest::Digest;
use crate::image::{Descriptor, OCI_LAYER};
use crate::registry::testserver::{
    Reply, Request, TestServer, options, registry, registry_with_login,
};
use crate::registry::{Options, Registry};

/// `user:secret` in base64.
const AUTH: &str = "dXNlcjpzZWNyZXQ=";
/// What of a login must not be anywhere else.
const SECRETS: [&str; 4] = ["secret", AUTH, "id-token", "pass"];

fn descriptor() -> Descriptor {
    Descriptor::new(OCI_LAYER, Digest::of(b"content"), 7)
}

/// Starts a registry that wants a token, which another server gives.
fn with_tokens(realm: String) -> TestServer {
    TestServer::start(move |request| {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"s\"");
        match request.header("authorization") {
            "Bearer good" => Reply::new(200, r#"{"tags":["1"]}"#),
            _ => Reply::new(401, "").header("WWW-Authenticate", &challenge),
        }
    })
}

/// Checks that none of the requests to a server has a secret in it.
fn has_no_secret(requests: &[Request]) {
    for request in requests {
        let told = format!("{request:?} {}", String::from_utf8_lossy(&request.body));
        let found = SECRETS.iter().find(|secret| told.contains(**secret));
        assert_eq!(found, None, "{told}");
    }
}

#[test]
fn regression_a_token_server_that_redirects_gets_the_login_to_no_other_host() {
    for status in [301, 302, 303, 307, 308] {
        for field in [format!(r#""auth":"{AUTH}""#), r#""identitytoken":"id-token""#.to_owned()] {
            let elsewhere = TestServer::start(|_| Reply::new(200, r#"{"token":"good"}"#));
            let target = format!("http://{}/take", elsewhere.host());
            let tokens =
                TestServer::start(move |_| Reply::new(status, "").header("Location", &target));
            let server = with_tokens(format!("http://{}/token", tokens.host()));
            let (registry, _dir) = registry_with_login(&server, &field);
            let said = registry.tags(&server.reference("a")).expect_err("refused").to_string();
            assert!(
                said.contains("it redirects a request that is for it alone to http://"),
                "{said}"
            );
            assert!(!tokens.requests("").is_empty());
            assert_eq!(elsewhere.requests("").len(), 0, "{status} {field}");
            assert!(SECRETS.iter().all(|secret| !said.contains(secret)), "{said}");
        }
    }
}

#[test]
fn a_token_server_may_lead_who_has_no_login_to_another_host() {
    let elsewhere = TestServer::start(|_| Reply::new(200, r#"{"token":"good"}"#));
    let target = format!("http://{}/take", elsewhere.host());
    let tokens = TestServer::start(move |_| Reply::new(307, "").header("Location", &target));
    let server = with_tokens(format!("http://{}/token", tokens.host()));
    assert_eq!(registry().tags(&server.reference("a")).expect("tags"), ["1"]);
    assert_eq!(elsewhere.requests("").len(), 1);
}

#[test]
fn whatever_leads_to_another_host_takes_neither_login_nor_origin_along() {
    let elsewhere = TestServer::start(|_| Reply::new(200, "content"));
    let target = format!("http://{}/blob", elsewhere.host());
    let server = TestServer::start(move |request| match request.line.as_str() {
        "GET /v2/" => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=r"),
        _ => Reply::new(307, "").header("Location", &target),
    });
    let (registry, _dir) = registry_with_login(&server, &format!(r#""auth":"{AUTH}""#));
    let reference = server.reference("a");
    let mut blob = registry.blob(&reference, &descriptor(), 0).expect("a reader");
    let mut bytes = Vec::new();
    blob.read_to_end(&mut bytes).expect("the blob");
    assert_eq!(bytes, b"content");
    // What these make of the answer is not the point.
    drop((registry.resolve(&reference), registry.tags(&reference)));
    drop(registry.has_blob(&reference, Digest::of(b"content")));
    drop(registry.push_manifest(&reference, "x/y", b"{}"));
    let open = || Ok(Box::new(&b"abc"[..]) as Box<dyn Read + Send>);
    drop(registry.push_blob(&reference, Digest::of(b"abc"), 3, &open, &|_| {}));
    let asked = server.requests("GET /v2/a/");
    assert!(asked.iter().all(|request| request.header("authorization").ends_with(AUTH)));
    let reached = elsewhere.requests("");
    assert!(reached.len() >= 4, "{reached:?}");
    has_no_secret(&reached);
    assert!(reached.iter().all(|request| request.header("referer").is_empty()), "{reached:?}");
}

#[test]
fn the_places_that_a_descriptor_names_get_no_login() {
    let elsewhere = TestServer::start(|_| Reply::new(200, "content"));
    let server = TestServer::start(|request| match request.line.as_str() {
        "GET /v2/" => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=r"),
        _ => Reply::new(404, ""),
    });
    let (registry, _dir) = registry_with_login(&server, &format!(r#""auth":"{AUTH}""#));
    let urls = vec![format!("http://{}/foreign", elsewhere.host())];
    let descriptor = Descriptor { urls, ..descriptor() };
    let mut blob = registry.blob(&server.reference("a"), &descriptor, 0).expect("a reader");
    blob.read_to_end(&mut Vec::new()).expect("the blob");
    has_no_secret(&elsewhere.requests("GET /foreign"));
    assert_eq!(elsewhere.requests("GET /foreign").len(), 1);
}

#[test]
fn regression_a_login_in_an_address_is_in_no_message() {
    let hidden = |host: &str| format!("http://user:pass@{host}/x?pass#pass");
    let gone = TestServer::start(|_| Reply::new(404, "not here")).host();
    for location in [
        hidden("127.0.0.1:1"),
        hidden("host:99999"),
        hidden(&gone),
        "ftp://user:pass@h/".to_owned(),
    ] {
        let shown = location.clone();
        let server = TestServer::start(move |request| match request.line.as_str() {
            "GET /v2/" => Reply::new(200, ""),
            _ => Reply::new(307, "").header("Location", &location),
        });
        let reference = server.reference("a");
        let messages = [
            registry().resolve(&reference).map(drop).expect_err("refused").to_string(),
            registry()
                .blob(&reference, &descriptor(), 0)
                .map(drop)
                .expect_err("refused")
                .to_string(),
            registry().tags(&reference).map(drop).expect_err("refused").to_string(),
            registry()
                .download(&format!("http://user:pass@{}/y?pass", server.host()))
                .map(drop)
                .expect_err("refused")
                .to_string(),
        ];
        for said in messages {
            assert!(!said.contains("pass"), "{shown}: {said}");
        }
    }
    let said = registry().download("http://user:pass@[::1/x").map(drop).expect_err("none");
    assert!(!said.to_string().contains("pass"), "{said}");
    let server = TestServer::start(|request| {
        let realm = format!("Bearer realm=\"http://user:pass@{}/t?pass\"", request.header("host"));
        match request.line.starts_with("GET /v2/") {
            true => Reply::new(401, "").header("WWW-Authenticate", &realm),
            false => Reply::new(200, "no token"),
        }
    });
    let said = registry().tags(&server.reference("a")).expect_err("no token").to_string();
    assert!(said.contains("/t cannot be read") && !said.contains("pass"), "{said}");
}

#[test]
fn answers_without_an_end_are_given_up() {
    let registry = || {
        let read_timeout = Duration::from_millis(300);
        Registry::new(Options { read_timeout, attempts: 1, ..options() }).expect("threads")
    };
    // Each byte comes in time, and all of them never; of a refusal, too.
    for status in [200, 404] {
        let server = TestServer::start(move |request| match request.line.as_str() {
            "GET /v2/" => Reply::new(200, ""),
            _ => Reply::new(status, vec![b' '; 1 << 20]).in_drops(),
        });
        let reference = server.reference("a");
        let messages = [
            registry().resolve(&reference).map(drop).expect_err("given up").to_string(),
            registry().tags(&reference).map(drop).expect_err("given up").to_string(),
        ];
        for said in messages {
            assert!(said.contains("timeout"), "{said}");
        }
        if status == 404 {
            let said = registry().blob(&reference, &descriptor(), 0).map(drop);
            let said = said.expect_err("given up").to_string();
            assert!(said.contains("timeout"), "{said}");
        }
    }
}

#[test]
fn answers_that_are_too_large_are_given_up() {
    let large = vec![b' '; 5 << 20];
    let many = "x".repeat(8 << 20);
    let server = TestServer::start(move |request| match request.line.as_str() {
        "GET /v2/" => Reply::new(200, ""),
        line if line.contains("/head/") => Reply::new(200, "{}").header("X-Many", &many),
        _ => Reply::new(200, large.as_slice()),
    });
    for said in [
        registry().resolve(&server.reference("a")).map(drop).expect_err("too large"),
        registry().tags(&server.reference("a")).map(drop).expect_err("too large"),
    ] {
        assert!(
            said.to_string().contains("is too large: expected at most 4194304 bytes"),
            "{said}"
        );
    }
    let said = registry().resolve(&server.reference("head/a")).map(drop).expect_err("too large");
    assert!(said.to_string().contains("message head is too large"), "{said}");
}

#[test]
fn a_list_of_tags_without_an_end_is_given_up() {
    let page = format!(r#"{{"tags":["{}"]}}"#, "x".repeat(4_000_000));
    let server = TestServer::start(move |request| {
        let link = format!("</v2/a/tags/list?n={}>; rel=next", request.line.len());
        match request.line.as_str() {
            "GET /v2/" => Reply::new(200, ""),
            _ => {
                // Another page each time.
                let next = link.replace("?n=", &format!("?{}n=", "x".repeat(request.line.len())));
                Reply::new(200, page.as_str()).header("Link", &next)
            }
        }
    });
    let said = registry().tags(&server.reference("a")).expect_err("too large").to_string();
    assert!(said.contains("is too large: expected at most 33554432 bytes"), "{said}");
    assert!(server.requests("GET /v2/a/").len() < 12);
}

#[test]
fn documents_that_are_nested_without_an_end_are_no_json() {
    for body in ["[".repeat(1 << 20), r#"{"a":"#.repeat(1 << 18)] {
        for status in [200, 400] {
            let body = body.clone();
            let server = TestServer::start(move |request| match request.line.as_str() {
                "GET /v2/" => Reply::new(200, ""),
                _ => Reply::new(status, body.as_str()),
            });
            let said = registry().tags(&server.reference("a")).expect_err("no list").to_string();
            assert!(said.len() < 1000, "{said}");
        }
    }
}

#[test]
fn what_a_registry_says_moves_no_cursor() {
    let complaint = "\u{1b}[2J\u{7}bad\nworse";
    for body in [
        serde_json::json!({"errors": [{"code": "X", "message": complaint}]}).to_string(),
        serde_json::json!({"details": complaint}).to_string(),
        complaint.to_owned(),
    ] {
        let server = TestServer::start(move |request| match request.line.as_str() {
            "GET /v2/" => Reply::new(200, ""),
            _ => Reply::new(400, body.as_str()),
        });
        let said = registry().tags(&server.reference("a")).expect_err("refused").to_string();
        assert!(said.contains("[2Jbad") && !said.contains(char::is_control), "{said:?}");
    }
}

#[test]
fn headers_that_are_no_text_mean_nothing() {
    let server = TestServer::start(|request| match request.line.as_str() {
        "GET /v2/" => Reply::new(401, "").header_bytes("WWW-Authenticate", b"Bearer realm=\xff"),
        _ => Reply::new(200, r#"{"tags":["1"]}"#)
            .header_bytes("Link", b"<\xff>; rel=next")
            .header_bytes("Content-Type", b"\xff"),
    });
    assert_eq!(registry().tags(&server.reference("a")).expect("tags"), ["1"]);
}

#[test]
fn a_compressed_explanation_is_not_inflated() {
    let server = TestServer::start(|request| match request.line.as_str() {
        "GET /v2/" => Reply::new(200, ""),
        _ => Reply::new(400, vec![0x1f, 0x8b, 8, 0]).header("Content-Encoding", "gzip"),
    });
    let said = registry().tags(&server.reference("a")).expect_err("refused").to_string();
    assert!(said.contains("received unexpected HTTP status: 400"), "{said}");
    assert!(server.requests("GET /v2/a/")[0].header("accept-encoding").is_empty());
}
