//! What strata does otherwise than docker, on purpose. The page `docs/cli.md` has the same table.

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Deviation {
    /// What the records call it.
    pub(crate) name: &'static str,
    what: &'static str,
    docker: &'static str,
    strata: &'static str,
    why: &'static str,
}

impl Deviation {
    /// Returns the row as the page has it.
    pub(crate) fn row(&self) -> String {
        format!("| {} | {} | {} | {} |", self.what, self.docker, self.strata, self.why)
    }
}

pub(crate) const DEVIATIONS: [Deviation; 17] = [
    Deviation {
        name: "newer",
        what: "what docker has changed since 20.10, whose daemon the records are of",
        docker: "`Invalid filter 'x'`; no `--platform` of `save` and `load`; no `label!=` and `until=` of `images`",
        strata: "as docker 28",
        why: "it is what people have now",
    },
    Deviation {
        name: "not-run",
        what: "what is about running: networks, ports, volumes, `HostConfig`",
        docker: "fields, files such as `/etc/hosts`, commands such as `start`; prunes *stopped* containers",
        strata: "empty fields or none, no such files or commands; prunes containers *that are not mounted*",
        why: "nothing is run",
    },
    Deviation {
        name: "takes-more",
        what: "arguments",
        docker: "containers in `export`, `diff` and the source of `cp`; files and URLs in `import`",
        strata: "images, too; a second tree; directories; `docker.io/…` in `images`, `.Label` in its templates; `cp` from container to container",
        why: "there is more that can be done without a daemon",
    },
    Deviation {
        name: "create",
        what: "`create`",
        docker: "pulls what is missing; has options for running",
        strata: "makes containers of what is in the store; `--name` alone",
        why: "the network is asked by `pull` alone",
    },
    Deviation {
        name: "one-text",
        what: "errors",
        docker: "several texts, or several lines, for the same fault",
        strata: "one, which names the thing",
        why: "it says what to do",
    },
    Deviation {
        name: "archive-faults",
        what: "archives that cannot be read",
        docker: "what its steps have stumbled over",
        strata: "what is wrong with the archive, and where",
        why: "it says what to do",
    },
    Deviation {
        name: "go-words",
        what: "values of options that are no number or no truth",
        docker: "words of Go's library",
        strata: "what was expected",
        why: "nobody needs to know Go",
    },
    Deviation {
        name: "templates",
        what: "wrong templates of `version` and `info`",
        docker: "their own words",
        strata: "those of `inspect`",
        why: "one text for one fault",
    },
    Deviation {
        name: "unset",
        what: "what is not set, in a template",
        docker: "`<nil>`",
        strata: "`<no value>`, or an error where the field may be missing",
        why: "the templates work on the document",
    },
    Deviation {
        name: "json-order",
        what: "keys of an object that `json` prints",
        docker: "in the order of its code",
        strata: "in alphabetical order",
        why: "the templates work on the document",
    },
    Deviation {
        name: "each-once",
        what: "`images -q`",
        docker: "an id for each name",
        strata: "each id once",
        why: "`rmi $(images -q)` works",
    },
    Deviation {
        name: "moved-name",
        what: "`load` of a name that another image has",
        docker: "says that the old one is renamed to nothing",
        strata: "says whether it has other names",
        why: "it is true",
    },
    Deviation {
        name: "import-source",
        what: "the history of an imported file",
        docker: "`Imported from -`",
        strata: "`Imported from FILE`",
        why: "it is known",
    },
    Deviation {
        name: "in-use",
        what: "images that containers use",
        docker: "`rmi -f` deletes them all the same; `prune -a` takes all names but one",
        strata: "stay whole, `prune` leaves their names",
        why: "the container can still be mounted and committed",
    },
    Deviation {
        name: "room",
        what: "`Total reclaimed space`",
        docker: "sizes of files",
        strata: "room on the disk, in whole blocks",
        why: "it is what comes back",
    },
    Deviation {
        name: "manifest",
        what: "manifests that `push` makes",
        docker: "docker's schema 2",
        strata: "OCI",
        why: "it is the standard",
    },
    Deviation {
        name: "platform",
        what: "`pull --platform` where there is one image, for another platform",
        docker: "takes it",
        strata: "refuses it, and what is no platform before anything is asked",
        why: "it would not be what was asked for",
    },
];
