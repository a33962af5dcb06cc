//! `History`: how each layer came to be, and which history entry belongs to which layer.
//!
//! History is for people: nothing may depend on it being there or being right. It must not know
//! sizes or names of layers.

use serde::Deserialize;
use serde::Serialize;

use crate::image::json::Other;
use crate::image::json::is_false;

/// One step of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When, as RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// A remark: docker's commit message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the step changed the config only and made no layer.
    #[serde(default, skip_serializing_if = "is_false")]
    pub empty_layer: bool,
    /// Fields that this struct does not name.
    #[serde(flatten)]
    pub other: Other,
}

/// A history entry with the layer it made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<'a, L> {
    /// The entry; none for a layer that history does not tell of.
    pub history: Option<&'a History>,
    /// The layer; none for a step that made none.
    pub layer: Option<&'a L>,
}

/// Pairs history entries with layers, both oldest first.
///
/// Layers that history does not tell of follow at the end, without an entry: history is optional.
pub fn steps<'a, L>(history: &'a [History], layers: &'a [L]) -> Vec<Step<'a, L>> {
    let mut layers = layers.iter();
    let mut steps: Vec<_> = history
        .iter()
        .map(|entry| {
            let layer = if entry.empty_layer { None } else { layers.next() };
            Step { history: Some(entry), layer }
        })
        .collect();
    steps.extend(layers.map(|layer| Step { history: None, layer: Some(layer) }));
    steps
}

/// Adds an entry without words for each layer that history does not tell of, and lets entries that tell
/// of layers which are not there tell of none, so that what is added afterwards belongs to the layer on
/// top of these.
pub fn fill_history(history: &mut Vec<History>, layers: usize) {
    let telling = history.iter_mut().filter(|entry| !entry.empty_layer);
    telling.skip(layers).for_each(|entry| entry.empty_layer = true);
    let told = history.iter().filter(|entry| !entry.empty_layer).count();
    history.extend(std::iter::repeat_n(History::default(), layers.saturating_sub(told)));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether there is an entry, and the layer.
    type Pair = (bool, Option<u8>);

    #[test]
    fn entries_and_layers_are_paired_in_order() {
        // (entries: L makes a layer, e is empty; layers; pairs)
        let table: [(&str, &[u8], &[Pair]); 6] = [
            ("", &[], &[]),
            ("L", &[1], &[(true, Some(1))]),
            ("LeL", &[1, 2], &[(true, Some(1)), (true, None), (true, Some(2))]),
            ("", &[1, 2], &[(false, Some(1)), (false, Some(2))]),
            ("e", &[1], &[(true, None), (false, Some(1))]),
            ("LL", &[1], &[(true, Some(1)), (true, None)]),
        ];
        for (entries, layers, expected) in table {
            let history: Vec<_> = entries
                .chars()
                .map(|c| History { empty_layer: c == 'e', ..History::default() })
                .collect();
            let found: Vec<_> = steps(&history, layers)
                .into_iter()
                .map(|step| (step.history.is_some(), step.layer.copied()))
                .collect();
            assert_eq!(found, expected, "{entries} {layers:?}");
        }
    }

    #[test]
    fn layers_without_entries_get_some() {
        let empty = History { empty_layer: true, ..History::default() };
        let mut history = vec![History::default(), empty.clone()];
        fill_history(&mut history, 3);
        let expected = [History::default(), empty, History::default(), History::default()];
        assert_eq!(history, expected);
        fill_history(&mut history, 3);
        assert_eq!(history.len(), 4);
        fill_history(&mut history, 2);
        let told: Vec<_> = history.iter().map(|entry| !entry.empty_layer).collect();
        assert_eq!(told, [true, false, true, false]);
    }
}
