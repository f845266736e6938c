//! What commands do in containers, and what calls do to the limits of containers.

use std::time::Duration;

use tokio::time;
use tonic::Status;

use super::Fake;
use super::script::Exec;
use super::state::{Container, ContainerStage};
use crate::v1;

impl Fake {
    pub(super) async fn exec(&self, request: v1::ExecSyncRequest) -> Result<v1::ExecSyncResponse, Status> {
        let v1::ExecSyncRequest { container_id: id, cmd: command, timeout } = request;
        let name = self.state().container_name(&id);
        self.enter("ExecSync", &format!("{name} {}", command.join(" "))).await?;
        match self.scripted(&id, command)? {
            Exec::Exit { code, stdout, stderr } => {
                Ok(v1::ExecSyncResponse { stdout: stdout.into(), stderr: stderr.into(), exit_code: code })
            }
            Exec::Fail(status) => Err(status),
            Exec::Hang => {
                let ended = self.until(|state| !state.containers.get(&id).is_some_and(Container::is_running));
                // Zero is no limit.
                match u64::try_from(timeout).map(Duration::from_secs) {
                    Ok(limit) if !limit.is_zero() => time::timeout(limit, ended).await.map_err(|_| {
                        Status::deadline_exceeded(format!("a command in container {id} took longer than {limit:?}"))
                    })?,
                    _ => ended.await,
                }
                Ok(v1::ExecSyncResponse { exit_code: 137, ..v1::ExecSyncResponse::default() })
            }
        }
    }

    fn scripted(&self, id: &str, command: Vec<String>) -> Result<Exec, Status> {
        let mut state = self.state();
        let container = state.container(id)?;
        if !container.is_running() {
            return Err(not_running(container));
        }
        if command.is_empty() {
            return Err(Status::invalid_argument("a command has at least one word"));
        }
        let (image, shown) = (container.image.clone(), command.join(" "));
        let scripted = state.execs.get_mut(&(image, command));
        scripted.and_then(|execs| execs.next.pop_front().or_else(|| execs.always.clone())).ok_or_else(|| {
            Status::unknown(format!("container {id} has no command {shown:?}: the script says nothing of it"))
        })
    }

    pub(super) async fn update_resources(
        &self,
        id: &str,
        resources: v1::LinuxContainerResources,
    ) -> Result<(), Status> {
        let name = self.state().container_name(id);
        self.enter("UpdateContainerResources", &name).await?;
        let mut state = self.state();
        let container = state.container(id)?;
        if matches!(container.stage, ContainerStage::Exited(_)) {
            return Err(not_running(container));
        }
        let Some(container) = state.containers.get_mut(id) else { return Ok(()) };
        let mine = container.config.linux.get_or_insert_default().resources.get_or_insert_default();
        let told = |old: &mut i64, new: i64| {
            if new != 0 {
                *old = new;
            }
        };
        told(&mut mine.cpu_period, resources.cpu_period);
        told(&mut mine.cpu_quota, resources.cpu_quota);
        told(&mut mine.cpu_shares, resources.cpu_shares);
        told(&mut mine.memory_limit_in_bytes, resources.memory_limit_in_bytes);
        told(&mut mine.oom_score_adj, resources.oom_score_adj);
        drop(state);
        self.turned();
        Ok(())
    }
}

fn not_running(container: &Container) -> Status {
    Status::failed_precondition(format!("container {} is in {} state", container.id, container.state().as_str_name()))
}
