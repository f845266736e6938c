//! The stream of what happens to containers and sandboxes.
//!
//! A reader that does not keep up is told so and let go, so that it lists anew: no event is ever left out silently.

use cri::v1::ContainerEventResponse;
use futures::{StreamExt, stream};
use tokio::sync::broadcast::error::RecvError;
use tonic::Status;
use tonic::codegen::BoxStream;

use crate::runtime::Core;

/// Events from now on, until the runtime ends.
pub(super) fn stream(core: &Core) -> BoxStream<ContainerEventResponse> {
    let events = stream::unfold(Some(core.events()), |events| async {
        let mut events = events?;
        match events.recv().await {
            Ok(event) => Some((Ok(event), Some(events))),
            Err(RecvError::Lagged(missed)) => {
                let lagged =
                    Status::data_loss(format!("{missed} events were missed: list the containers and begin anew"));
                Some((Err(lagged), None))
            }
            Err(RecvError::Closed) => None,
        }
    });
    Box::pin(events.take_until(core.closing.clone().cancelled_owned()))
}
