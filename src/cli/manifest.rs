//! `strata manifest inspect`.

use clap::Args;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::output::print;
use crate::image::{Platform, Reference, is_index};
use crate::service::{RemoteManifest, base64};

/// Show what a registry has under a name, without pulling it
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  strata manifest inspect alpine\n  strata manifest inspect -v \
                        localhost:5000/team/app:1"
)]
pub(crate) struct Arguments {
    /// Show each image with its platform, its digest and its manifest
    #[arg(short, long)]
    verbose: bool,

    /// The registry may be used without TLS or with a certificate nobody vouches for
    #[arg(long)]
    insecure: bool,

    /// The name
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: String,
}

/// What describes a manifest, in docker's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: &'a str,
    digest: String,
    size: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<&'a Platform>,
}

/// As docker indents an index, and everything else.
const OF_AN_INDEX: &str = "   ";
const OF_THE_REST: &str = "\t";

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let reference: Reference = arguments.name.parse()?;
    let strata = match arguments.insecure {
        true => context.with_insecure(reference.domain()).strata()?,
        false => context.strata()?,
    };
    if !arguments.verbose {
        let found = strata.remote_manifest(&reference)?;
        let indent = if is_index(&found.media_type) { OF_AN_INDEX } else { OF_THE_REST };
        return print(indented(&found.bytes, indent).as_bytes());
    }
    let top = strata.remote_manifest(&reference)?;
    let each = strata.remote_manifests(&reference)?;
    let shown = each.iter().map(verbose).collect::<Result<Vec<_>, _>>()?;
    let text = match shown.as_slice() {
        [one] if !is_index(&top.media_type) => one.clone(),
        several => format!("[{}]", several.join(",")),
    };
    print(indented(text.as_bytes(), OF_THE_REST).as_bytes())
}

/// Returns a manifest and what describes it, as JSON. The manifest keeps the order of its fields.
fn verbose(found: &RemoteManifest) -> Result<String, Failure> {
    let invalid = |error: serde_json::Error| Failure::text(error.to_string());
    let descriptor = Descriptor {
        media_type: &found.media_type,
        digest: found.digest.to_string(),
        size: found.bytes.len(),
        platform: found.platform.as_ref(),
    };
    let descriptor = serde_json::to_string(&descriptor).map_err(invalid)?;
    let raw: &RawValue = serde_json::from_slice(&found.bytes).map_err(invalid)?;
    let kind = if found.media_type.contains("docker") { "SchemaV2Manifest" } else { "OCIManifest" };
    Ok(format!(
        "{{\"Ref\":{},\"Descriptor\":{descriptor},\"Raw\":{},\"{kind}\":{}}}",
        json!(found.reference.to_string()),
        json!(base64(&found.bytes)),
        raw.get()
    ))
}

/// Returns JSON with a line for each value, its fields in their order, as Go indents it.
fn indented(json: &[u8], indent: &str) -> String {
    let text = String::from_utf8_lossy(json);
    let (mut out, mut depth) = (String::new(), 0_usize);
    let mut letters = text.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&indent.repeat(depth));
    };
    while let Some(letter) = letters.next() {
        match letter {
            '"' => {
                out.push('"');
                let mut escaped = false;
                for letter in letters.by_ref() {
                    out.push(letter);
                    match letter {
                        '"' if !escaped => break,
                        letter => escaped = letter == '\\' && !escaped,
                    }
                }
            }
            '{' | '[' => {
                out.push(letter);
                while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
                match letters.next_if(|letter| matches!(letter, '}' | ']')) {
                    Some(close) => out.push(close),
                    None => {
                        depth += 1;
                        line(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(letter);
            }
            ',' => {
                out.push(',');
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            letter if letter.is_whitespace() => {}
            letter => out.push(letter),
        }
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_and_keeps_its_order() {
        let text = r#"{"b":1,"a":[],"c":{ },"d":[1,"x, \"{y}\": z"],"e":{"f":null}}"#;
        let expected = "{\n\t\"b\": 1,\n\t\"a\": [],\n\t\"c\": {},\n\t\"d\": [\n\t\t1,\n\t\t\"x, \
                        \\\"{y}\\\": z\"\n\t],\n\t\"e\": {\n\t\t\"f\": null\n\t}\n}\n";
        assert_eq!(indented(text.as_bytes(), "\t"), expected);
        assert_eq!(indented(expected.as_bytes(), "\t"), expected);
    }
}
