//! Layers and files on a real terminal, which tmux is.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Session, Who, run, script};

/// How long a screen may take to show what is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

static SERVERS: AtomicU32 = AtomicU32::new(0);

/// A terminal of its own server of tmux, which ends with it.
struct Terminal<'a> {
    session: &'a Session,
    server: String,
    folder: PathBuf,
}

impl<'a> Terminal<'a> {
    /// Opens a terminal in which a shell runs the program with `arguments`, says its exit code and
    /// whether the terminal is set as it was, and waits.
    fn open(session: &'a Session, variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let number = SERVERS.fetch_add(1, Ordering::Relaxed);
        let server = format!("strata-{}-{number}", std::process::id());
        let folder = session.dir(&server);
        let terminal = Self { session, server, folder };
        let program = session.command(arguments);
        let mut words = vec!["env".to_owned()];
        words.extend(variables.iter().map(|(name, value)| format!("{name}={value}")));
        words.extend(
            std::iter::once(program.get_program())
                .chain(program.get_args())
                .map(|word| word.to_str().unwrap().to_owned()),
        );
        let shell = format!(
            "before=$(stty -g); {}; code=$?; after=$(stty -g); \
             [ \"$before\" = \"$after\" ] && echo \"ended with $code, restored\"; exec cat",
            words.join(" ")
        );
        terminal.tmux(&["new-session", "-d", "-x", "100", "-y", "24", &shell]);
        terminal
    }

    fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let program = self.session.command::<&str>(&[]);
        let mut command = Command::new("tmux");
        command.args(["-f", "/dev/null", "-L", &self.server]).args(arguments).env_clear();
        for (name, value) in program.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command
            .env("TMUX_TMPDIR", &self.folder)
            .env("SHELL", "/bin/sh")
            .env("LC_ALL", "C.UTF-8")
            .current_dir(self.session.path(""));
        self.session.who.run(&mut command);
        command
    }

    #[track_caller]
    fn tmux(&self, arguments: &[&str]) -> String {
        let output = run(&mut self.command(arguments));
        assert_eq!(output.code, 0, "tmux {arguments:?}: {}", output.stderr);
        output.stdout
    }

    fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn type_line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.press(&["Enter"]);
    }

    /// Waits until the screen shows a text, and returns it.
    #[track_caller]
    fn wait_for(&self, text: &str) -> String {
        self.wait_until(text, |screen| screen.contains(text))
    }

    #[track_caller]
    fn wait_until(&self, what: &str, is_there: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let screen = self.tmux(&["capture-pane", "-p"]);
            if is_there(&screen) {
                return screen;
            }
            assert!(begun.elapsed() < PATIENCE, "no {what:?} on the screen:\n{screen}");
            std::thread::yield_now();
        }
    }

    /// Returns the id of the program, which the shell has begun.
    fn program(&self) -> u32 {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let shell = shell.trim();
        let path = format!("/proc/{shell}/task/{shell}/children");
        fs::read_to_string(path).unwrap().trim().parse().unwrap()
    }

    /// Waits for the end of the program, after which the terminal must be as before.
    #[track_caller]
    fn ended_with(&self, code: i32) {
        self.wait_for(&format!("ended with {code}, restored"));
        let alternate = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        assert_eq!(alternate.trim(), "0 1", "the screen of the shell, with its cursor");
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        // If the server never began there is none to end.
        drop(run(&mut self.command(&["kill-server"])));
    }
}

/// Returns a session with `app:1` of two layers, and the container `box` with a change.
fn with_layers(who: Who) -> Session {
    let session = Session::new(who);
    let base = "mkdir -p etc/conf.d bin && echo hello > etc/motd && echo old > etc/old
                echo deep > etc/conf.d/deep && printf 'a\\0b' > bin/tool";
    script(base, &session.dir("image"));
    session.run(&["import", "-m", "first", "image", "app:0"]);
    let change = |name: &str, from: &str, what: &str| {
        let mount = session.dir(name);
        session.run(&["create", "--name", name, from, "second", "step"]);
        session.run(&["mount", name, name]);
        who.act(|| script(what, &mount));
        session.unmount(name);
    };
    change(
        "work",
        "app:0",
        "echo changed > etc/motd && rm etc/old && mkdir opt && echo n > opt/new",
    );
    session.run(&["commit", "work", "app:1"]);
    change("box", "app:1", "echo mine > etc/mine");
    session
}

#[test]
fn layers_and_files_are_gone_through() {
    for who in [Who::Root, Who::User] {
        let session = with_layers(who);
        let terminal = Terminal::open(&session, &[], &["explore", "app:1"]);
        let screen = terminal.wait_for("Files up to layer 2");
        for part in ["first", "second step", "C drwxr-xr-x", "A drwxr-xr-x"] {
            assert!(screen.contains(part), "{part}:\n{screen}");
        }
        terminal.press(&["Tab", "j", "l"]);
        let screen = terminal.wait_for("conf.d");
        let marks: Vec<_> = ["motd", "old"]
            .map(|name| screen.lines().find(|line| line.contains(name)).unwrap_or_default())
            .map(|line| line.rsplit("││").next().unwrap_or_default().chars().next())
            .to_vec();
        assert_eq!(marks, [Some('C'), Some('D')], "{screen}");
        terminal.press(&["Tab", "k"]);
        terminal.wait_for("Files up to layer 1");
        terminal.press(&["/"]);
        terminal.type_line("deep");
        terminal.wait_for("named deep");
        terminal.press(&["v"]);
        terminal.wait_for(" 1 of 1 lines ");
        terminal.press(&["q"]);
        terminal.wait_for("named deep");
        terminal.press(&["q"]);
        terminal.ended_with(0);
    }
}

#[test]
fn the_changes_of_a_container_are_the_highest_layer() {
    let session = with_layers(Who::User);
    let terminal = Terminal::open(&session, &[], &["explore", "box"]);
    terminal.wait_for("container box");
    terminal.press(&["a", "l", "l", "j"]);
    let screen = terminal.wait_for(" /etc/mine ");
    assert!(screen.contains("Changes of layer 3"), "{screen}");
    assert!(!screen.contains("motd"), "{screen}");
    terminal.press(&["C-c"]);
    terminal.ended_with(130);
}

#[test]
fn a_file_is_saved_where_it_is_said() {
    let session = with_layers(Who::User);
    session.dir("out");
    let terminal = Terminal::open(&session, &[], &["explore", "app:1"]);
    terminal.wait_for("Files up to layer 2");
    terminal.press(&["/"]);
    terminal.type_line("motd");
    terminal.wait_for(" /etc/motd ");
    terminal.press(&["s"]);
    terminal.wait_for("Save motd as: ./motd");
    terminal.press(&["C-u"]);
    terminal.type_line("out");
    terminal.wait_for("saved /etc/motd as ");
    assert_eq!(fs::read_to_string(session.path("out/motd")).unwrap(), "changed\n");
    fs::write(session.path("out/motd"), "mine\n").unwrap();
    terminal.press(&["s", "C-u"]);
    terminal.type_line("out");
    terminal.wait_for("Replace it? (y/n)");
    terminal.press(&["n"]);
    terminal.wait_for("nothing was saved");
    assert_eq!(fs::read_to_string(session.path("out/motd")).unwrap(), "mine\n");
    terminal.press(&["q"]);
    terminal.ended_with(0);
}

#[test]
fn the_terminal_is_given_back_when_a_signal_ends_it() {
    let session = with_layers(Who::Root);
    for (signal, code) in [("-TERM", 143), ("-INT", 130)] {
        let terminal = Terminal::open(&session, &[], &["explore", "app:1"]);
        terminal.wait_for("Files up to layer 2");
        let id = terminal.program().to_string();
        assert_eq!(run(Command::new("kill").args([signal, &id])).code, 0);
        terminal.ended_with(code);
        let leases = fs::read_dir(session.path("store/leases")).unwrap();
        assert_eq!(leases.count(), 0, "a lease is left");
    }
}

#[test]
fn a_screen_may_become_small_and_large_again() {
    let session = with_layers(Who::Root);
    let terminal = Terminal::open(&session, &[], &["explore", "app:1"]);
    terminal.wait_for("Files up to layer 2");
    terminal.tmux(&["resize-window", "-x", "30", "-y", "6"]);
    terminal.wait_until("one pane", |screen| {
        screen.contains("app:1") && !screen.contains("Files up to layer 2")
    });
    terminal.tmux(&["resize-window", "-x", "3", "-y", "2"]);
    terminal.press(&["Tab", "j", "j"]);
    terminal.tmux(&["resize-window", "-x", "120", "-y", "30"]);
    let screen = terminal.wait_for(" /opt ");
    assert!(screen.contains("Files up to layer 2"), "{screen}");
    terminal.press(&["q"]);
    terminal.ended_with(0);
}

#[test]
fn colours_are_left_out_on_demand() {
    let session = with_layers(Who::Root);
    for (value, is_coloured) in [("", true), ("1", false)] {
        let terminal = Terminal::open(&session, &[("NO_COLOR", value)], &["explore", "app:1"]);
        terminal.wait_for("Files up to layer 2");
        let screen = terminal.tmux(&["capture-pane", "-p", "-e"]);
        // Yellow, the colour of a change.
        assert_eq!(screen.contains("\u{1b}[38;5;3m"), is_coloured, "{screen:?}");
    }
}

#[test]
fn without_a_terminal_it_is_refused() {
    let session = Session::new(Who::User);
    session.import("base:1");
    let refused = session.refused(&["explore", "base:1"]);
    assert!(refused.contains("standard input is not a terminal"), "{refused}");
    let terminal = Terminal::open(&session, &[("TERM", "dumb")], &["explore", "base:1"]);
    terminal.wait_for("TERM is \"dumb\"");
    terminal.ended_with(1);
    let terminal = Terminal::open(&session, &[], &["explore", "nope"]);
    terminal.wait_for("No such object: nope");
    terminal.ended_with(1);
}
