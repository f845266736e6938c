//! The seam's own suite, which every runtime passes.

use cri::suite::{Seam, SuiteImages, run_all};

use crate::bed::{Node, reference};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_runtime_passes_the_seams_suite() {
    let node = Node::new().await;
    let seam = Seam {
        client: node.client().clone(),
        images: SuiteImages {
            exits_zero: reference("prints"),
            exits_seven: reference("exits-seven"),
            parked: reference("parked"),
            spins: reference("spins"),
            shows_itself: Some(reference("shows-itself")),
            executes: Some(reference("commands")),
            missing: node.missing_image(),
        },
    };
    let report = run_all(async || seam.clone()).await;
    assert!(report.is_clean(), "{report}");
}
