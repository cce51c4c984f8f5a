//! A server started from a binary on this machine, in a directory of its own. Used by `server`.
//! Guarantees that the server and the directory are removed when the test process ends for any reason.
//!
//! Invariant: the server's parent is a shell, the wrapper. It reads commands from a pipe whose only writer is this process,
//! and cleans up when the pipe closes: after `Drop`, a panic, Ctrl-C or SIGKILL, and for a static, which is never dropped.
//! PDEATHSIG is not sufficient: it is sent when the thread that started the server ends, which is the thread of a test
//! and ends before the process; and it removes no directory.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::server::{ServerSpec, variable};

/// `$0` is the home, `$1` the signal that ends the server at the end, `$2` its script, the rest the script's arguments.
/// It ignores SIGPIPE, which a reply without a reader causes and which would end it before it cleans up.
/// A shell starts background commands with SIGQUIT ignored, and PostgreSQL needs some time to install its own handler:
/// therefore `guard` sends SIGKILL to a server that has not ended after 10 s.
const WRAPPER: &str = r#"
trap '' PIPE; umask 077; mkdir "$0" && cd "$0" || exit
last_signal=$1 script=$2 server=; shift 2
PREPARE_ONLY=yes sh -c "$script" >>log 2>&1
echo prepared
while read -r request; do
  case $request in
    start) sh -c "$script" sh "$@" </dev/null >>log 2>&1 & server=$! ;;
    -*) kill -s "${request#-}" "$server" ;;
    *) kill -s "$request" "$server"; wait "$server"; server= ;;
  esac
  echo done
done
if [ -n "$server" ]; then
  ( sleep 10 & timer=$!; trap 'kill $timer; exit' TERM; wait $timer; kill -s KILL "$server" ) & guard=$!
  kill -s "$last_signal" "$server"; wait "$server"; kill "$guard"
fi
cd / && rm -rf "$0"
"#;

/// A server process and its wrapper.
pub(crate) struct Process {
    home: PathBuf,
    wrapper: Child,
    /// Closed by `Drop`, so that the wrapper cleans up.
    commands: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
}

impl Process {
    /// The directory of the server with this port; unique per server.
    pub(crate) fn home(port: u16) -> PathBuf {
        std::env::temp_dir().join(format!("tributary-test-{}-{port}", std::process::id()))
    }

    /// Starts the server in `home`, with `programs` at the front of PATH.
    pub(crate) fn start(spec: &ServerSpec, home: PathBuf, programs: &Path) -> Self {
        let path = variable("PATH").unwrap_or_default();
        let mut wrapper = Command::new("sh");
        wrapper.args(["-c", WRAPPER]).arg(&home).args([spec.last_signal, spec.script]);
        wrapper.args(&spec.arguments);
        wrapper.envs(spec.variables.iter().map(|(name, value)| (name, value)));
        wrapper.env("SERVER_HOME", &home).env("PATH", format!("{}:{path}", programs.display()));
        if let Some((user_id, group_id)) = unprivileged_account() {
            wrapper.uid(user_id).gid(group_id);
        }
        // A process group of its own: Ctrl-C must not end the wrapper before it cleans up.
        wrapper.process_group(0).current_dir("/");
        wrapper.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut wrapper = wrapper.spawn().expect("every Unix has sh");
        let commands = wrapper.stdin.take();
        let replies = BufReader::new(wrapper.stdout.take().expect("its output is piped"));
        let mut process = Self { home, wrapper, commands, replies };
        process.await_reply();
        process.start_again();
        process
    }

    /// Starts the server again with the same files.
    pub(crate) fn start_again(&mut self) {
        self.send("start");
    }

    /// Sends the signal and waits until the server has ended.
    pub(crate) fn end(&mut self, signal: &str) {
        self.send(signal);
    }

    /// Sends the signal; the server continues to run.
    pub(crate) fn signal(&mut self, signal: &str) {
        self.send(&format!("-{signal}"));
    }

    /// The path of one of the server's files.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// The log of the server.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read(self.home.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    fn send(&mut self, request: &str) {
        let commands = self.commands.as_mut().expect("the pipe is open until drop");
        writeln!(commands, "{request}").expect("the wrapper runs until the pipe closes");
        self.await_reply();
    }

    fn await_reply(&mut self) {
        let mut reply = String::new();
        self.replies.read_line(&mut reply).expect("the pipe of the wrapper is readable");
        assert!(!reply.is_empty(), "the wrapper could not create {}", self.home.display());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Err(error) = self.wrapper.wait() {
            eprintln!("waiting for a server's wrapper failed: {error}");
        }
    }
}

/// The user and group to run as when this process is root, because PostgreSQL refuses to run as root: `postgres` if it
/// exists, else `nobody`.
fn unprivileged_account() -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| -> Option<u32> {
        let output = Command::new("id").args(arguments).output().expect("every Unix has id");
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    let of = |name: &str| Some((id(&["-u", name])?, id(&["-g", name])?));
    if id(&["-u"]) != Some(0) {
        return None;
    }
    Some(
        of("postgres").or_else(|| of("nobody")).expect("the account `postgres` or `nobody` exists"),
    )
}
