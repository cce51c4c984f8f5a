//! A server in a container, started with testcontainers. Used by `server` if a Docker daemon is available.
//! Guarantees, like `process`, that the server ends with the test process: a shell, the remover, removes the container
//! when its pipe closes.

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

use testcontainers::bollard::models::PortBinding;
use testcontainers::core::IntoContainerPort;
use testcontainers::runners::AsyncRunner;
use testcontainers::{GenericImage, ImageExt};

use super::server::ServerSpec;

/// `$0` is the container. If this process is killed before it writes `created`, the daemon may still be creating the
/// container: therefore the remover retries for 10 s.
const REMOVER: &str = r#"
remove() { docker rm --force --volumes "$0"; }
if read -r _; then
  read -r _; remove
else
  for _ in 1 2 3 4 5 6 7 8 9 10; do remove; sleep 1; done
fi
"#;

/// Whether a daemon is available, and has the image or can pull it.
pub(crate) fn offers(image: &str) -> bool {
    docker(&["image", "inspect", image]).is_ok()
        || (docker(&["info"]).is_ok() && docker(&["pull", image]).is_ok())
}

/// A container and its remover.
pub(crate) struct Container {
    name: String,
    remover: Child,
    pipe: Option<ChildStdin>,
}

impl Container {
    /// Starts the server; it listens on `port` of loopback only.
    pub(crate) async fn start(spec: ServerSpec, port: u16) -> Self {
        let name = format!("tributary-test-{}-{port}", std::process::id());
        let mut container = Self::with_remover(name);
        let (image, tag) = spec.image.rsplit_once(':').unwrap_or((&spec.image, "latest"));
        let ports = [Some((spec.inner_port, port)), spec.second_port];
        let bindings = ports.into_iter().flatten().map(|(inner, outer)| {
            let binding = PortBinding {
                host_ip: Some("127.0.0.1".into()),
                host_port: Some(outer.to_string()),
            };
            (format!("{inner}/tcp"), Some(vec![binding]))
        });
        let bindings: HashMap<_, _> = bindings.collect();
        let mut request = GenericImage::new(image, tag)
            .with_entrypoint("sh")
            .with_exposed_port(spec.inner_port.tcp())
            .with_cmd(["-c", spec.script, "sh"].map(String::from).into_iter().chain(spec.arguments))
            .with_user(spec.user)
            .with_container_name(&container.name)
            // testcontainers' own port mapping would listen on every interface.
            .with_host_config_modifier(move |host| {
                host.publish_all_ports = Some(false);
                host.port_bindings = Some(bindings.clone());
            });
        for (variable, value) in spec.variables {
            request = request.with_env_var(variable, value);
        }
        let running = request.start().await.expect("the daemon has the image and the port is free");
        // The remover removes the container, also if this process is killed or holds it in a static.
        std::mem::forget(running);
        let pipe = container.pipe.as_mut().expect("the pipe is open until drop");
        writeln!(pipe, "created").expect("the remover runs until the pipe closes");
        container
    }

    fn with_remover(name: String) -> Self {
        let mut remover = Command::new("sh")
            .args(["-c", REMOVER, &name])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("every Unix has sh");
        let pipe = remover.stdin.take();
        Self { name, remover, pipe }
    }

    /// Starts the server again, on the same port and the same files.
    pub(crate) fn start_again(&self) {
        docker(&["start", &self.name]).expect("the container starts");
    }

    /// Sends the signal to the server and waits until its container has stopped.
    pub(crate) fn end(&self, signal: &str) {
        docker(&["kill", "--signal", signal, &self.name]).expect("the container runs");
        docker(&["wait", &self.name]).expect("the container exists");
    }

    /// Sends a signal to a process in the container, by its PID there.
    pub(crate) fn signal_inside(&self, signal: &str, pid: i32) {
        docker(&["exec", &self.name, "sh", "-c", &format!("kill -s {signal} {pid}")])
            .expect("the process exists");
    }

    /// The log of the server.
    pub(crate) fn log(&self) -> String {
        docker(&["logs", &self.name]).expect("the container exists")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.pipe.take());
        if let Err(error) = self.remover.wait() {
            eprintln!("waiting for a container's remover failed: {error}");
        }
    }
}

/// Returns the output of the command, as `Err` if it fails.
fn docker(arguments: &[&str]) -> Result<String, String> {
    let output =
        Command::new("docker").args(arguments).output().map_err(|error| error.to_string())?;
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if output.status.success() { Ok(text) } else { Err(text) }
}
