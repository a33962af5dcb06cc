//! `Platform`: what an image runs on, and which image of an index to take for it.
//!
//! Names are normalised as containerd does (`aarch64` is `arm64`, `x86_64` is `amd64`, `armhf` is
//! `arm/v7`), so that what a person types, what an index says and what the host is compare equal.
//! It must not look at the machine beyond what the compiler knows of it.

use std::env::consts;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::Serialize;

use crate::image::Error;
use crate::image::Result;
use crate::image::json::Other;
use crate::image::json::null_as_default;
use crate::image::manifest::Descriptor;
use crate::image::manifest::Index;

const SYSTEMS: [&str; 18] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "wasip1",
    "windows",
    "zos",
];
const ARCHITECTURES: [&str; 17] = [
    "386", "amd64", "arm", "armbe", "arm64", "arm64be", "loong64", "mips", "mips64", "mips64le",
    "mipsle", "ppc64", "ppc64le", "riscv64", "s390x", "sparc64", "wasm",
];
const UNKNOWN: &str = "unknown";
/// The annotation that buildkit puts on what is about an image rather than an image.
const ATTESTATION: &str = "vnd.docker.reference.type";
const OLDEST_ARM: u32 = 5;
const OLDEST_AMD64: u32 = 1;

/// An operating system, an architecture, and a variant of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// The architecture, in Go's words: `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// The operating system, in Go's words: `linux`.
    #[serde(default)]
    pub os: String,
    /// The version of the system that the image asks for (Windows).
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features of the system that the image asks for (Windows).
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// The variant of the architecture: `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Fields that this struct does not name.
    #[serde(flatten)]
    pub other: Other,
}

impl Platform {
    /// Returns the platform of a system and an architecture, normalised.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let (architecture, variant) = normal_architecture(architecture, variant.unwrap_or(""));
        let variant = (!variant.is_empty()).then_some(variant);
        Self { os: normal_os(os), architecture, variant, ..Self::default() }
    }

    /// Returns the platform that strata was built for.
    pub fn host() -> Self {
        Self::new(consts::OS, consts::ARCH, None)
    }

    /// Returns the platform `os[/architecture[/variant]]`; either of the first two may stand alone.
    ///
    /// # Errors
    /// The text has no such form, or its only word is unknown.
    pub fn parse(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(|part| is_part(part)) {
            return Err(Error::PlatformFormat { platform: text.to_owned() });
        }
        match parts[..] {
            [word] => Self::from_word(word),
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(Error::PlatformFormat { platform: text.to_owned() }),
        }
    }

    fn from_word(word: &str) -> Result<Self> {
        let os = Self { os: normal_os(word), ..Self::host() };
        if SYSTEMS.contains(&os.os.as_str()) {
            return Ok(os);
        }
        let architecture = Self::new(consts::OS, word, None);
        if ARCHITECTURES.contains(&architecture.architecture.as_str()) {
            return Ok(architecture);
        }
        Err(Error::PlatformUnknown { platform: word.to_owned() })
    }

    /// Returns the platform with its names normalised.
    #[must_use]
    pub fn normalized(&self) -> Self {
        Self {
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            other: self.other.clone(),
            ..Self::new(&self.os, &self.architecture, self.variant.as_deref())
        }
    }

    /// Says whether an image for `other` is an image for this platform: same system, architecture
    /// and variant.
    pub fn matches(&self, other: &Self) -> bool {
        let (this, other) = (self.normalized(), other.normalized());
        (this.os, this.architecture, this.variant) == (other.os, other.architecture, other.variant)
    }

    /// Says whether an image for `other` runs here: it is for this variant or an older one.
    pub fn runs(&self, other: &Self) -> bool {
        self.compatible().iter().any(|platform| platform.matches(other))
    }

    /// Returns the platforms whose images run here, the best first.
    ///
    /// The order is containerd's: the variant itself, then the older ones of the same family.
    fn compatible(&self) -> Vec<Self> {
        let this = self.normalized();
        let oldest = match this.architecture.as_str() {
            "arm" => OLDEST_ARM,
            "amd64" => OLDEST_AMD64,
            _ => return vec![this],
        };
        let number = |variant: &str| variant.trim_start_matches('v').parse();
        // A variant without a number is no fault: nothing older is compatible with it.
        let version = this.variant.as_deref().map_or(Ok(oldest), number).unwrap_or(oldest);
        let older = (oldest..version)
            .rev()
            .map(|version| Self::new(&this.os, &this.architecture, Some(&format!("v{version}"))));
        std::iter::once(this.clone()).chain(older).collect()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

/// Returns the entry of `index` to take for `wanted`, or `None` where nothing fits.
///
/// An entry that names no platform is taken if nothing else fits: OCI leaves the platform optional.
/// Attestations and other documents about an image are never taken.
pub fn select<'a>(index: &'a Index, wanted: &Platform) -> Option<&'a Descriptor> {
    let images = || index.manifests.iter().filter(|entry| is_image_entry(entry));
    let fits = |entry: &&Descriptor, platform: &Platform| {
        entry.platform.as_ref().is_some_and(|found| platform.matches(found))
    };
    wanted
        .compatible()
        .iter()
        .find_map(|platform| images().find(|entry| fits(entry, platform)))
        .or_else(|| images().find(|entry| entry.platform.is_none()))
}

/// Says whether an entry of an index is an image, not an attestation or another document about one.
pub fn is_image_entry(entry: &Descriptor) -> bool {
    let unknown = |platform: &Platform| platform.os == UNKNOWN || platform.architecture == UNKNOWN;
    !entry.platform.as_ref().is_some_and(unknown)
        && !entry.annotations.contains_key(ATTESTATION)
        && !entry.other.contains_key("artifactType")
}

fn is_part(part: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    !part.is_empty() && part.bytes().all(allowed)
}

fn normal_os(os: &str) -> String {
    match os.to_lowercase().as_str() {
        "macos" => "darwin".to_owned(),
        os => os.to_owned(),
    }
}

/// Returns architecture and variant in containerd's words. The variants that mean "the usual one"
/// are empty, except that an `arm` without a variant is `v7`.
fn normal_architecture(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = (architecture.to_lowercase(), variant.to_lowercase());
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386" | "i686" | "x86", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "" | "1" | "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "" | "8" | "v8") => ("arm64", ""),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        ("powerpc64le", variant) => ("ppc64le", variant),
        ("loongarch64", variant) => ("loong64", variant),
        (architecture, variant) => (architecture, variant),
    };
    (architecture.to_owned(), variant.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn platforms_are_normalised_as_docker_does() {
        let host = Platform::host();
        let table = [
            ("linux/amd64", "linux/amd64"),
            ("Linux/X86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("macos/arm64", "darwin/arm64"),
            ("linux/made-up", "linux/made-up"),
            ("arm64", &format!("{}/arm64", host.os)),
            ("linux", &format!("linux/{}", host.architecture)),
        ];
        for (typed, expected) in table {
            assert_eq!(Platform::parse(typed).expect(typed).to_string(), expected, "{typed}");
        }
    }

    #[test]
    fn what_is_not_a_platform_is_refused() {
        for text in ["", "/", "linux/", "linux/amd64/v1/x", "linux/*", "no-such-word", "a b"] {
            assert!(Platform::parse(text).is_err(), "{text:?}");
        }
    }

    fn entry(platform: Option<&str>) -> Descriptor {
        let platform = platform.map(|text| {
            let mut parts = text.split('/').map(str::to_owned);
            Platform {
                os: parts.next().expect("an os"),
                architecture: parts.next().expect("an architecture"),
                variant: parts.next(),
                ..Platform::default()
            }
        });
        let digest = Digest::of(format!("{platform:?}").as_bytes());
        Descriptor { platform, ..Descriptor::new("application/json", digest, 1) }
    }

    #[test]
    fn the_best_compatible_variant_is_taken() {
        // (entries, wanted, taken)
        let table: [(&[&str], &str, Option<&str>); 13] = [
            (&["linux/arm64", "linux/amd64"], "linux/amd64", Some("linux/amd64")),
            (&["linux/arm64/v8"], "linux/arm64", Some("linux/arm64/v8")),
            (&["linux/arm64"], "linux/arm64/v8", Some("linux/arm64")),
            (&["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], "linux/arm", Some("linux/arm/v7")),
            (&["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7", Some("linux/arm/v6")),
            (&["linux/arm/v7", "linux/arm/v5"], "linux/arm/v6", Some("linux/arm/v5")),
            (&["linux/arm/v8"], "linux/arm/v7", None),
            (&["linux/amd64", "linux/amd64/v2"], "linux/amd64/v3", Some("linux/amd64/v2")),
            (&["linux/amd64"], "linux/amd64/v3", Some("linux/amd64")),
            (&["linux/amd64/v2"], "linux/amd64", None),
            (&["linux/amd64", "windows/amd64"], "windows/amd64", Some("windows/amd64")),
            (&["linux/amd64"], "linux/s390x", None),
            (&["unknown/unknown"], "linux/amd64", None),
        ];
        for (entries, wanted, taken) in table {
            let manifests = entries.iter().map(|platform| entry(Some(platform))).collect();
            let index = Index::new(manifests);
            let found = select(&index, &Platform::parse(wanted).expect(wanted));
            let found = found.and_then(|entry| entry.platform.as_ref()).map(Platform::to_string);
            assert_eq!(found.as_deref(), taken, "{wanted} of {entries:?}");
        }
    }

    #[test]
    fn an_image_for_an_older_variant_runs_and_one_for_a_newer_does_not() {
        let table = [
            ("linux/amd64/v3", "linux/amd64", true),
            ("linux/amd64", "linux/amd64/v2", false),
            ("linux/arm/v7", "linux/arm/v6", true),
            ("linux/arm/v6", "linux/arm/v7", false),
            ("linux/amd64", "linux/arm64", false),
        ];
        for (here, image, expected) in table {
            let [here, image] = [here, image].map(|text| Platform::parse(text).expect(text));
            assert_eq!(here.runs(&image), expected, "{image} on {here}");
        }
    }

    #[test]
    fn attestations_are_skipped_and_an_entry_without_platform_is_the_last_resort() {
        let wanted = Platform::new("linux", "amd64", None);
        let mut attestation = entry(None);
        attestation.annotations.insert(ATTESTATION.to_owned(), "attestation-manifest".to_owned());
        let index = Index::new(vec![attestation, entry(None)]);
        assert_eq!(select(&index, &wanted), Some(&index.manifests[1]));
        let index = Index::new(vec![entry(None), entry(Some("linux/amd64"))]);
        assert_eq!(select(&index, &wanted), Some(&index.manifests[1]));
    }
}
