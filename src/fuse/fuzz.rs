//! What fuzzing does with this room: requests as no kernel sends them.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a crash is what this looks for, and it is in no program"
)]

use std::fs::File;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use zerocopy::IntoBytes;

use crate::fuse::abi::{InHeader, opcode};
use crate::fuse::answer::Answer;
use crate::fuse::convert::FOREVER;
use crate::fuse::device::{Device, buffer};
use crate::fuse::ops::{History, Requests};
use crate::fuse::options::MountOptions;
use crate::fuse::request::Request;
use crate::overlay::fuzz::{Kept, base};
use crate::overlay::{Error, Overlay};

/// Most requests of one input.
const REQUESTS: usize = 64;
/// What stands for a node or handle that an answer has named: this number, and those above it.
const NAMED: u8 = 0xf0;

/// What the answers have named.
#[derive(Default)]
struct Named {
    nodes: Vec<u64>,
    handles: Vec<u64>,
}

/// Answers requests about a tree that cannot be changed, then about one that can, whose changes are
/// kept below `folder`.
///
/// A request is an opcode, a node, flags, a length, and that many bytes.
pub(crate) fn requests(data: &[u8], folder: &Path) {
    serve(data, Overlay::read_only(base()));
    let kept = Kept::new(folder);
    serve(data, kept.overlay().expect("an empty upper"));
}

fn serve(mut data: &[u8], overlay: Overlay) {
    let null = || File::options().read(true).write(true).open("/dev/null").expect("it is there");
    let device = Arc::new(Device::new(null().into()));
    let statfs_of = File::open("/").expect("it is there").into();
    let requests = Requests::new(overlay, &device, statfs_of, (FOREVER, true), History::Begins);
    let (mut named, mut memory) = (Named::default(), buffer());
    for unique in 0..REQUESTS as u64 {
        let Some(([op, node, flags, len], rest)) = data.split_first_chunk::<4>() else { return };
        let (body, rest) = rest.split_at(rest.len().min(usize::from(*len)));
        data = rest;
        let header = InHeader {
            len: 0,
            opcode: u32::from(*op),
            unique,
            nodeid: named.node(*node),
            uid: u32::from(flags & 1) * 1000,
            gid: u32::from(flags & 2) * 1000,
            pid: u32::from(flags & 4),
            total_extlen: u16::from(flags >> 7),
            padding: 0,
        };
        let mut body = body.to_vec();
        named.put_handle(&mut body);
        let bytes = [header.as_bytes(), &body].concat();
        let Some(request) = Request::parse(&bytes) else { continue };
        let mut answer = Answer::new(&mut memory);
        let result = match requests.operate(&request, request.args(), &mut answer) {
            Some(result) => result.map_err(|error: Error| error.errno()),
            None => continue,
        };
        let answer = answer.finish(unique, result);
        named.note(request.opcode(), answer.get(16..).unwrap_or_default());
    }
}

impl Named {
    fn node(&self, byte: u8) -> u64 {
        let named = byte.checked_sub(NAMED).and_then(|number| self.nodes.get(usize::from(number)));
        named.copied().unwrap_or(u64::from(byte))
    }

    /// Puts a handle where most requests have one.
    fn put_handle(&self, body: &mut [u8]) {
        if let Some(place) = body.first_chunk_mut::<8>()
            && let Some(number) = place[0].checked_sub(NAMED)
            && let Some(handle) = self.handles.get(usize::from(number))
        {
            *place = handle.to_le_bytes();
        }
    }

    fn note(&mut self, op: u32, answer: &[u8]) {
        let number = |at: usize| {
            let bytes = answer.get(at..at + 8)?.try_into().ok()?;
            Some(u64::from_le_bytes(bytes))
        };
        let (node, handle) = match op {
            opcode::LOOKUP | opcode::MKDIR | opcode::MKNOD | opcode::SYMLINK | opcode::LINK => {
                (number(0), None)
            }
            // Behind the answer of a lookup.
            opcode::CREATE | opcode::TMPFILE => (number(0), number(128)),
            opcode::OPEN | opcode::OPENDIR => (None, number(0)),
            _ => (None, None),
        };
        self.nodes.extend(node);
        self.handles.extend(handle);
    }
}

/// Reads what follows `-o`.
pub(crate) fn options(text: &str) {
    if let Ok(options) = MountOptions::parse(&[text]) {
        assert!(!options.source.contains(','));
        black_box(options.is_read_only());
    }
}
