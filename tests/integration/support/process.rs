//! A server started from a binary of this machine, in a directory of its own. Used by `server`.
//! Promises that neither the server nor the directory outlives the test process, however that one ends.
//!
//! Invariant: the server's parent is a shell, the wrapper. It reads commands from a pipe whose only writer is this process,
//! and cleans up when the pipe closes: after `Drop`, a panic, Ctrl-C or SIGKILL, and for a static, which is never dropped.
//! PDEATHSIG would not do: it is sent when the thread that started the server ends, which is a test's thread and ends
//! before the process; and it removes no directory.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::server::{ServerSpec, variable};

/// `$0` is the home, `$1` the signal that ends the server for good, `$2` its script, the rest the script's arguments.
/// It ignores SIGPIPE: otherwise an answer that is not read any more would end it before it has cleaned up.
/// A shell starts background commands with SIGQUIT ignored, and PostgreSQL needs some time to install its own handler:
/// therefore `guard` sends SIGKILL to a server that has not ended after 10 s.
const WRAPPER: &str = r#"
trap '' PIPE; umask 077; mkdir "$0" && cd "$0" || exit
last_signal=$1 script=$2 server=; shift 2
PREPARE_ONLY=yes sh -c "$script" >>log 2>&1
echo prepared
while read -r word; do
  case $word in
    start) sh -c "$script" sh "$@" </dev/null >>log 2>&1 & server=$! ;;
    -*) kill -s "${word#-}" "$server" ;;
    *) kill -s "$word" "$server"; wait "$server"; server= ;;
  esac
  echo done
done
if [ -n "$server" ]; then
  ( sleep 10 & nap=$!; trap 'kill $nap; exit' TERM; wait $nap; kill -s KILL "$server" ) & guard=$!
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
    answers: BufReader<ChildStdout>,
}

impl Process {
    /// The directory of the server of this process and port; no two servers share one.
    pub(crate) fn home(port: u16) -> PathBuf {
        std::env::temp_dir().join(format!("tributary-test-{}-{port}", std::process::id()))
    }

    /// Starts the service in `home`, with `programs` before PATH.
    pub(crate) fn start(service: &ServerSpec, home: PathBuf, programs: &Path) -> Self {
        let path = variable("PATH").unwrap_or_default();
        let mut wrapper = Command::new("sh");
        wrapper.args(["-c", WRAPPER]).arg(&home).args([service.last_signal, service.script]);
        wrapper.args(&service.arguments);
        wrapper.envs(service.variables.iter().map(|(name, value)| (name, value)));
        wrapper.env("SERVER_HOME", &home).env("PATH", format!("{}:{path}", programs.display()));
        if let Some((user_id, group_id)) = unprivileged_account() {
            wrapper.uid(user_id).gid(group_id);
        }
        // Its own process group, or Ctrl-C would end the wrapper before it has cleaned up.
        wrapper.process_group(0).current_dir("/");
        wrapper.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut wrapper = wrapper.spawn().expect("every Unix has sh");
        let commands = wrapper.stdin.take();
        let answers = BufReader::new(wrapper.stdout.take().expect("its output is piped"));
        let mut process = Self { home, wrapper, commands, answers };
        process.await_answer();
        process.start_again();
        process
    }

    /// Starts the server on the same files as before.
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

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read(self.home.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    fn send(&mut self, word: &str) {
        let commands = self.commands.as_mut().expect("the pipe is open until drop");
        writeln!(commands, "{word}").expect("the wrapper runs until the pipe closes");
        self.await_answer();
    }

    fn await_answer(&mut self) {
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the wrapper's pipe can be read");
        assert!(!answer.is_empty(), "the wrapper could not create {}", self.home.display());
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
        of("postgres")
            .or_else(|| of("nobody"))
            .expect("there is an account `postgres` or `nobody`"),
    )
}
