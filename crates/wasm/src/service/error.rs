//! Why a call was refused or failed, and the gRPC code that says so.

use tonic::{Code, Status};

use crate::address::AddressError;
use crate::container::mounts::MountError;
use crate::guest::exec::ExecError;
use crate::host_port::HostPortError;
use crate::id::{ContainerId, SandboxId};
use crate::images::ImageError;
use crate::records::RecordError;
use crate::sandbox::network::NetworkError;

/// The longest message of a status: encoded for its header it may be three times that, and a client takes 16 KiB.
const MESSAGE_BYTES: usize = 4 << 10;

/// Why a call of the kubelet was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// There is no such sandbox.
    #[error("sandbox {0:?} not found")]
    NoSandbox(String),
    /// There is no such container.
    #[error("container {0:?} not found")]
    NoContainer(String),
    /// Several ids begin so.
    #[error("{0:?} is the beginning of more than one id")]
    AmbiguousId(String),
    /// The request cannot be understood.
    #[error("{field}: {problem}")]
    Invalid {
        /// CRI's name of the field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The request asks for something guests cannot have.
    #[error("{field}: {problem}")]
    Unsupported {
        /// CRI's name of the field.
        field: &'static str,
        /// Why not.
        problem: String,
    },
    /// Another sandbox or container has the name.
    #[error("the name {name} is taken by {id}")]
    NameTaken {
        /// The name, with the attempt.
        name: String,
        /// Who has it.
        id: String,
    },
    /// The sandbox does not run.
    #[error("sandbox {0} is not ready")]
    SandboxNotReady(SandboxId),
    /// The container is past what is asked of it.
    #[error("container {id} is {state}")]
    WrongState {
        /// The container.
        id: ContainerId,
        /// The state it is in.
        state: &'static str,
    },
    /// The container did not end in time, not even killed.
    #[error("container {0} has not ended yet")]
    StillRunning(ContainerId),
    /// Containers were made in the sandbox while it was being removed.
    #[error("sandbox {0} still has containers")]
    StillHasContainers(SandboxId),
    /// Nobody gives the sandbox an address.
    #[error("sandbox network")]
    Network(#[from] NetworkError),
    /// All addresses are taken.
    #[error("pod address")]
    Address(#[from] AddressError),
    /// The sandbox's port is not published.
    #[error(transparent)]
    HostPort(#[from] HostPortError),
    /// The container's files are not there.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The image is not there or cannot be had.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The image's code cannot run here.
    #[error("image {image}")]
    Code {
        /// The image's reference.
        image: String,
        /// What is wrong with the code.
        #[source]
        source: crate::code::CodeError,
    },
    /// The image is a Spin application that cannot run here.
    #[error("image {image}")]
    Application {
        /// The image's reference.
        image: String,
        /// What is wrong with it.
        #[source]
        source: crate::spin::PlanError,
    },
    /// The code of one of its components cannot run here.
    #[error("image {image}: component {component}")]
    Component {
        /// The image's reference.
        image: String,
        /// The component.
        component: String,
        /// What is wrong with its code.
        #[source]
        source: crate::code::CodeError,
    },
    /// The guest did not start.
    #[error("start container {id}")]
    Start {
        /// The container.
        id: ContainerId,
        /// Why not.
        #[source]
        source: crate::guest::StartError,
    },
    /// The disk does not take what must outlive this process.
    #[error("keep the record")]
    Record(#[from] RecordError),
    /// The log file cannot be opened.
    #[error("reopen the log of container {id}")]
    Log {
        /// The container.
        id: ContainerId,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The guest has outgrown its new limits already. In the words that the kubelet has for it: users see them.
    #[error("attempting to set container {name:?} {problem}")]
    Resize {
        /// The container's name in its pod.
        name: String,
        /// What it holds.
        problem: crate::limits::MemoryInUse,
    },
    /// A command could not be run.
    #[error("exec in container {id}")]
    Exec {
        /// The container.
        id: ContainerId,
        /// Why not.
        #[source]
        source: ExecError,
    },
    /// A command ran longer than it may.
    #[error("exec in container {id}: the command was stopped after {seconds} s")]
    ExecTimeout {
        /// The container.
        id: ContainerId,
        /// How long it could run.
        seconds: u64,
    },
    /// The runtime is being shut down.
    #[error("the runtime is shutting down")]
    ShuttingDown,
}

impl ServiceError {
    pub(crate) fn invalid(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Invalid { field, problem: problem.into() }
    }

    pub(crate) fn unsupported(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Unsupported { field, problem: problem.into() }
    }

    fn code(&self) -> Code {
        match self {
            Self::NoSandbox(_) | Self::NoContainer(_) => Code::NotFound,
            Self::AmbiguousId(_) | Self::Invalid { .. } | Self::Unsupported { .. } => Code::InvalidArgument,
            Self::NameTaken { .. } => Code::AlreadyExists,
            Self::SandboxNotReady(_)
            | Self::WrongState { .. }
            | Self::StillHasContainers(_)
            | Self::Network(_)
            | Self::HostPort(_)
            | Self::Mount(_)
            | Self::Code { .. }
            | Self::Application { .. }
            | Self::Component { .. } => Code::FailedPrecondition,
            Self::Address(_) => Code::ResourceExhausted,
            Self::StillRunning(_) | Self::ExecTimeout { .. } => Code::DeadlineExceeded,
            Self::Image(error) => error.code(),
            Self::Start { .. } | Self::Record(_) | Self::Log { .. } => Code::Internal,
            Self::Resize { .. } => Code::FailedPrecondition,
            Self::Exec { source, .. } => match source {
                ExecError::Ended | ExecError::Refused(_) => Code::FailedPrecondition,
                ExecError::TooMany => Code::ResourceExhausted,
                ExecError::Start(_) => Code::Internal,
            },
            Self::ShuttingDown => Code::Unavailable,
        }
    }
}

impl From<ServiceError> for Status {
    /// The kubelet shows a status' message to users, so it says the whole of it, down to what the system said. Some of that
    /// are names out of a guest's file, which may be as long as a book; a message travels in a header, which may not.
    fn from(error: ServiceError) -> Self {
        let mut message = chain(&error);
        if message.len() > MESSAGE_BYTES {
            message.truncate(message.floor_char_boundary(MESSAGE_BYTES));
            message.push_str(" [cut]");
        }
        Self::new(error.code(), message)
    }
}

/// An error and all that led to it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
