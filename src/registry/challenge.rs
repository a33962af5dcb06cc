//! `Challenge`: what a registry wants to see before it answers (RFC 9110 §11, distribution token
//! authentication).
//!
//! Pure: the values of `WWW-Authenticate` in, the way to authenticate out. It must not know
//! credentials.

use std::iter::Peekable;
use std::str::Chars;

/// How a registry wants to be authenticated to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Not at all, or in no way that strata knows.
    None,
    /// With user and password in each request.
    Basic,
    /// With a token.
    Bearer(Bearer),
}

/// Where to get a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bearer {
    /// The URL of the token server.
    pub(super) realm: String,
    /// What the token server knows the registry as.
    pub(super) service: Option<String>,
}

impl Challenge {
    /// Returns the best challenge of the header's values: a token before a password.
    pub(super) fn parse<'a>(values: impl Iterator<Item = &'a str>) -> Self {
        let offers: Vec<Offer> = values.flat_map(offers).collect();
        if let Some(bearer) = offers.iter().find_map(Offer::bearer) {
            return Self::Bearer(bearer);
        }
        let is_basic = |offer: &Offer| offer.scheme.eq_ignore_ascii_case("basic");
        if offers.iter().any(is_basic) { Self::Basic } else { Self::None }
    }
}

/// One scheme with its parameters.
struct Offer {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Offer {
    fn bearer(&self) -> Option<Bearer> {
        if !self.scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let realm = self.parameter("realm")?;
        Some(Bearer { realm, service: self.parameter("service") })
    }

    fn parameter(&self, name: &str) -> Option<String> {
        let is_it = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        self.parameters.iter().find(is_it).map(|(_, value)| value.clone())
    }
}

/// Reads `Scheme key=value, key="value", Scheme …`: a word before a `=` is a parameter's name, any
/// other word a scheme.
fn offers(value: &str) -> Vec<Offer> {
    let mut offers: Vec<Offer> = Vec::new();
    let mut chars = value.chars().peekable();
    loop {
        skip(&mut chars, |c| c.is_whitespace() || c == ',');
        if chars.peek().is_none() {
            return offers;
        }
        let word = take(&mut chars, |c| !c.is_whitespace() && !",=\"".contains(c));
        skip(&mut chars, char::is_whitespace);
        match (chars.next_if_eq(&'='), offers.last_mut()) {
            (Some(_), Some(offer)) => offer.parameters.push((word, parameter_value(&mut chars))),
            (None, _) if !word.is_empty() => {
                offers.push(Offer { scheme: word, parameters: Vec::new() });
            }
            // A sign that belongs nowhere: it must be taken, or the loop would not end.
            _ => drop(chars.next()),
        }
    }
}

fn parameter_value(chars: &mut Peekable<Chars<'_>>) -> String {
    skip(chars, char::is_whitespace);
    if chars.next_if_eq(&'"').is_none() {
        return take(chars, |c| !c.is_whitespace() && c != ',');
    }
    let mut value = String::new();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => value.extend(chars.next()),
            c => value.push(c),
        }
    }
    value
}

fn skip(chars: &mut Peekable<Chars<'_>>, belongs: impl Fn(char) -> bool) {
    while chars.next_if(|c| belongs(*c)).is_some() {}
}

fn take(chars: &mut Peekable<Chars<'_>>, belongs: impl Fn(char) -> bool) -> String {
    let mut text = String::new();
    while let Some(c) = chars.next_if(|c| belongs(*c)) {
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer(Bearer { realm: realm.into(), service: service.map(str::to_owned) })
    }

    #[test]
    fn the_best_challenge_of_all_headers_is_taken() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io""#;
        let table: [(&[&str], Challenge); 11] = [
            (&[], Challenge::None),
            (&[""], Challenge::None),
            (&["Negotiate"], Challenge::None),
            (&[r#"Basic realm="r""#], Challenge::Basic),
            (&["basic"], Challenge::Basic),
            (&[hub], bearer("https://auth.docker.io/token", Some("registry.docker.io"))),
            (
                &[r#"bearer service=s , realm = "http://a/t?x=1,2" , scope="a:b:pull,push""#],
                bearer("http://a/t?x=1,2", Some("s")),
            ),
            (&[r#"Basic realm="r", Bearer realm="u""#], bearer("u", None)),
            (&["Basic realm=r", r#"Bearer realm="a\"b""#], bearer("a\"b", None)),
            (&["Bearer service=x"], Challenge::None),
            (&["=, \" Basic"], Challenge::Basic),
        ];
        for (values, expected) in table {
            assert_eq!(Challenge::parse(values.iter().copied()), expected, "{values:?}");
        }
    }
}
