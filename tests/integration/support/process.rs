//! A server started from a binary of this machine, in a directory of its own. Used by `server`.
//! Promises that neither the server nor the directory outlives the test process, however that one ends.
//!
//! Invariant: a keeper, a small shell that is the server's parent, reads commands from a pipe whose only writer is this
//! process, and cleans up when the pipe closes. So `Drop`, a static that is never dropped, a panic, Ctrl-C and SIGKILL
//! all end in one path. A signal on the parent's death (PDEATHSIG) is no match: it follows the thread that spawned the
//! server, a test's thread, which ends before the process does; and it removes no directory.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::server::{Service, variable};

/// `$0` is the home, `$1` the signal that ends the server for good, `$2` its script, the rest the script's arguments.
/// It ignores SIGPIPE, or an answer that nobody is left to read would end it before it has cleaned up.
/// A shell starts what is in the background with SIGQUIT ignored, and PostgreSQL takes a moment to undo that: hence the
/// guard, which kills what has not ended in time.
const KEEPER: &str = r#"
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

/// A server process under its keeper.
pub(crate) struct Process {
    home: PathBuf,
    keeper: Child,
    /// Closed by `Drop`, which tells the keeper to clean up.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Process {
    /// Where the server of this process and port lives; no two have the same.
    pub(crate) fn home(port: u16) -> PathBuf {
        std::env::temp_dir().join(format!("tributary-test-{}-{port}", std::process::id()))
    }

    /// Starts the service in `home`, with `programs` before PATH.
    pub(crate) fn start(service: &Service, home: PathBuf, programs: &Path) -> Self {
        let path = variable("PATH").unwrap_or_default();
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER]).arg(&home).args([service.last_signal, service.script]);
        keeper.args(&service.arguments);
        keeper.envs(service.variables.iter().map(|(name, value)| (name, value)));
        keeper.env("SERVER_HOME", &home).env("PATH", format!("{}:{path}", programs.display()));
        if let Some((user_id, group_id)) = unprivileged_account() {
            keeper.uid(user_id).gid(group_id);
        }
        // Its own process group, or Ctrl-C would end the keeper before it has cleaned up.
        keeper.process_group(0).current_dir("/");
        keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut keeper = keeper.spawn().expect("every Unix has sh");
        let commands = keeper.stdin.take();
        let answers = BufReader::new(keeper.stdout.take().expect("its output is piped"));
        let mut process = Self { home, keeper, commands, answers };
        process.listen();
        process.start_again();
        process
    }

    /// Starts the server on the same files as before.
    pub(crate) fn start_again(&mut self) {
        self.tell("start");
    }

    /// Sends the signal and waits until the server has ended.
    pub(crate) fn end(&mut self, signal: &str) {
        self.tell(signal);
    }

    /// Sends the signal, and the server goes on.
    pub(crate) fn signal(&mut self, signal: &str) {
        self.tell(&format!("-{signal}"));
    }

    /// A file of the server's.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read(self.home.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    fn tell(&mut self, word: &str) {
        let commands = self.commands.as_mut().expect("the pipe is open until drop");
        writeln!(commands, "{word}").expect("the keeper lives as long as we do");
        self.listen();
    }

    fn listen(&mut self) {
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the keeper's pipe can be read");
        assert!(!answer.is_empty(), "the keeper could not make {}", self.home.display());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Err(error) = self.keeper.wait() {
            eprintln!("a server's keeper could not be waited for: {error}");
        }
    }
}

/// The user and group to run as when we are root, as whom PostgreSQL refuses to run: its own account if there is one,
/// else the one that owns nothing.
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
