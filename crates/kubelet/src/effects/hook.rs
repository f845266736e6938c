//! Hooks of containers: a command in the container, an HTTP request of the pod, or a sleep.
//!
//! Comes in: the hook, and how long it may take. Goes out: that it is done, or why it failed. Never here: what comes of it.

use std::time::Duration;

use cri::client::ExecError;
use decide::event::Failure;
use decide::names::{ContainerId, ContainerName};
use decide::pod::{Container, Hook, HttpGet, Pod, Scheme};
use decide::report::Report;

use super::{Effects, Say, Subject};
use crate::prober::http::{self, HttpRequest};

/// How long a `postStart` may take. The kubelet sets no limit; one that takes so long will never end.
const POST_START_LIMIT: Duration = Duration::from_secs(60 * 60);

/// Why a hook is not done.
enum HookError {
    /// Its time is over.
    TimedOut,
    /// It failed, in the kubelet's words.
    Failed(String),
}

impl Effects {
    /// Runs the `postStart` hook of a container, if it has one.
    pub(super) async fn post_start(
        &self,
        subject: &Subject,
        container: &ContainerName,
        id: &ContainerId,
        say: Say<'_>,
    ) -> Result<(), Failure> {
        let spec = subject.pod.container(container);
        let Some((spec, hook)) = spec.and_then(|spec| Some((spec, spec.hooks.post_start.as_ref()?))) else {
            return Ok(());
        };
        let run = self.run_hook(subject, spec, id, (hook, POST_START_LIMIT), say).await;
        run.map_err(|error| {
            let message = match error {
                HookError::TimedOut => format!("the postStart hook took longer than {POST_START_LIMIT:?}"),
                HookError::Failed(message) => message,
            };
            Failure::new("PostStartHookError", message)
        })
    }

    /// Runs the `preStop` hook of a container, if it has one. One that is not done in its grace is given up, and that is no
    /// failure.
    pub(super) async fn pre_stop(
        &self,
        subject: &Subject,
        container: &ContainerName,
        id: &ContainerId,
        grace: Duration,
        say: Say<'_>,
    ) -> Result<(), Failure> {
        let spec = subject.pod.container(container);
        let Some((spec, hook)) = spec.and_then(|spec| Some((spec, spec.hooks.pre_stop.as_ref()?))) else {
            return Ok(());
        };
        match self.run_hook(subject, spec, id, (hook, grace), say).await {
            Ok(()) | Err(HookError::TimedOut) => Ok(()),
            Err(HookError::Failed(message)) => Err(Failure::new("PreStopHookError", message)),
        }
    }

    async fn run_hook(
        &self,
        subject: &Subject,
        container: &Container,
        id: &ContainerId,
        (hook, limit): (&Hook, Duration),
        say: Say<'_>,
    ) -> Result<(), HookError> {
        let failed = |hook: &str, why: String| HookError::Failed(words(&subject.pod, container, hook, &why));
        match hook {
            Hook::Sleep(time) if *time > limit => {
                tokio::time::sleep(limit).await;
                Err(HookError::TimedOut)
            }
            Hook::Sleep(time) => {
                tokio::time::sleep(*time).await;
                Ok(())
            }
            Hook::Exec(command) => {
                let command_line = command.join(" ");
                let hook = format!("Exec lifecycle hook ([{command_line}])");
                match self.runtime.exec_sync(id.as_str(), command, limit).await {
                    Ok(answer) if answer.exit_code == 0 => Ok(()),
                    Ok(answer) => {
                        let output = [answer.stdout, answer.stderr].concat();
                        let (code, output) = (answer.exit_code, String::from_utf8_lossy(&output));
                        let why = format!("command '{command_line}' exited with {code}: {output}, message: {output:?}");
                        Err(failed(&hook, why))
                    }
                    Err(ExecError::TimedOut { .. }) => Err(HookError::TimedOut),
                    Err(error) => Err(failed(&hook, format!("{error}, message: \"\""))),
                }
            }
            Hook::HttpGet(get) => {
                let answered = self.request(subject, container, (get, limit), say).await;
                answered.map_err(|error| match error {
                    HookError::Failed(why) => failed(&format!("HTTP lifecycle hook ({})", get.path), why),
                    HookError::TimedOut => HookError::TimedOut,
                })
            }
            Hook::TcpSocket => {
                let why =
                    "Cannot run handler: invalid handler: tcpSocket is no hook any more; use exec, httpGet or sleep";
                Err(HookError::Failed(why.to_owned()))
            }
        }
    }

    /// Any answer will do. Who answers in the clear where TLS is asked for is asked in the clear, aloud.
    async fn request(
        &self,
        subject: &Subject,
        container: &Container,
        (get, limit): (&HttpGet, Duration),
        say: Say<'_>,
    ) -> Result<(), HookError> {
        let failed = |error: &dyn std::error::Error| HookError::Failed(error.to_string());
        let pod_ip = subject.pod_ips.first().copied();
        let request = HttpRequest::new(get, &container.ports, pod_ip, "lifecycle").map_err(|error| failed(&error))?;
        let error = match http::get(request.clone(), limit).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_timeout() => return Err(HookError::TimedOut),
            Err(error) if get.scheme == Scheme::Https && error.is_plain_http() => error,
            Err(error) => return Err(failed(&error)),
        };
        let host = request.authority();
        let in_the_clear = request.without_credentials().with_scheme(Scheme::Http);
        http::get(in_the_clear, limit).await.map_err(|_| failed(&error))?;
        let message = format!("request to HTTPS lifecycle hook {host} got HTTP response, retry with HTTP succeeded");
        say(Report::warning("LifecycleHTTPFallback", message));
        Ok(())
    }
}

fn words(pod: &Pod, container: &Container, hook: &str, why: &str) -> String {
    let place = format!("{}_{}({})", pod.name.name, pod.name.namespace, pod.uid);
    format!("{hook} for Container \"{}\" in Pod \"{place}\" failed - error: {why}", container.name)
}
