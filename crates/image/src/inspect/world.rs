//! Which well-known world a component is of.
//!
//! A binary does not keep its world's name, so it is told by what it imports and exports: the entry point of the world,
//! and no import from outside of it. A component that fits none has a world of its own, and no name is made up for it.

use super::Interface;

struct World {
    /// Package and name, without a version.
    name: &'static str,
    /// The only export.
    export: &'static str,
    /// What may be imported: whole packages end in `/`.
    imports: &'static [&'static str],
}

const WORLDS: [World; 4] = [
    World {
        name: "wasi:cli/command",
        export: "wasi:cli/run@0.2",
        imports: &["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/"],
    },
    World {
        name: "wasi:http/proxy",
        export: "wasi:http/incoming-handler@0.2",
        imports: &[
            "wasi:cli/stderr@",
            "wasi:cli/stdin@",
            "wasi:cli/stdout@",
            "wasi:clocks/",
            "wasi:http/outgoing-handler@",
            "wasi:http/types@",
            "wasi:io/",
            "wasi:random/",
        ],
    },
    World {
        name: "wasi:cli/command",
        export: "wasi:cli/run@0.3",
        imports: &["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:random/", "wasi:sockets/"],
    },
    World {
        name: "wasi:http/service",
        export: "wasi:http/handler@0.3",
        imports: &[
            "wasi:cli/stderr@",
            "wasi:cli/stdin@",
            "wasi:cli/stdout@",
            "wasi:cli/types@",
            "wasi:clocks/",
            "wasi:http/client@",
            "wasi:http/types@",
            "wasi:random/",
        ],
    },
];

/// The world with the version of its entry point, `wasi:cli/command@0.2.6`.
pub(super) fn known(imports: &[Interface], exports: &[Interface]) -> Option<String> {
    let [export] = exports else { return None };
    let (_, version) = export.name.split_once('@')?;
    let release = &version[..version.match_indices('.').nth(1).map_or(version.len(), |(dot, _)| dot)];
    // A world of 0.3 has no imports of 0.2, though a guest of it may have them.
    let fits = |import: &Interface, world: &World| {
        let of_release =
            import.name.split_once('@').is_some_and(|(_, it)| it == release || it.starts_with(&format!("{release}.")));
        of_release && world.imports.iter().any(|allowed| import.name.starts_with(allowed))
    };
    let world = WORLDS
        .iter()
        .find(|world| export.name.starts_with(world.export) && imports.iter().all(|import| fits(import, world)))?;
    Some(format!("{}@{version}", world.name))
}
