//! A Rust for wasm made from Debian packages.
//!
//! Comes in: an empty directory and the place it will be renamed to. Goes out: `bin/rustc` and `bin/rust-lld` there,
//! with std for `wasm32-wasip1` in their sysroot. Never here: a change of the system; apt works on a root of its
//! own and packages are unpacked, not installed, so their scripts never run.

use std::collections::BTreeSet;
use std::env;
use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::TARGET;
use crate::guests::command::run;

/// The suite that `Origin::Suite` takes: testing, which keeps a current Rust.
const NEWER_SUITE: &str = "forky";

/// Tells cargo the linker for [`TARGET`]. It has to be the generic lld, because rustc itself passes `-flavor wasm`.
pub(super) const LINKER_VARIABLE: &str = "CARGO_TARGET_WASM32_WASIP1_LINKER";

/// Which packages the toolchain is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The suites the machine is configured for; std compiled here.
    Own,
    /// A newer suite with its finished std.
    Suite,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "own",
            Self::Suite => NEWER_SUITE,
        })
    }
}

/// The release number of this Debian, or `None` on any other system.
pub(super) fn release() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let value = |key: &str| {
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(|value| value.trim_matches('"'))
    };
    if value("ID") != Some("debian") {
        return None;
    }
    // Testing has no number yet.
    Some(value("VERSION_ID").unwrap_or("testing").to_owned())
}

/// Makes the toolchain in `work`, to be used after `work` was renamed to `home`.
///
/// # Errors
/// When packages are missing or cannot be fetched, or std does not compile.
pub(super) fn make(origin: Origin, work: &Path, home: &Path) -> Result<()> {
    let apt = Apt::new(work, origin)?;
    let packages = match origin {
        Origin::Own => own_packages(&apt)?,
        Origin::Suite => suite_packages(&apt)?,
    };
    apt.unpack(&packages)?;
    fs::remove_dir_all(work.join("apt")).context("remove the private apt root")?;
    if origin == Origin::Own {
        write_wrappers(origin, work, work)?;
        build_std(work)?;
        // Half of the size, and only needed to compile std.
        fs::remove_dir_all(work.join("root/usr/src")).context("remove the sources of std")?;
    }
    write_wrappers(origin, work, home)
}

/// The compiler, std's sources, the C library for wasm and an lld of the same LLVM.
fn own_packages(apt: &Apt) -> Result<BTreeSet<String>> {
    let std_package = apt.first_dependency("libstd-rust-web-dev")?;
    let llvm = apt
        .depends(&[&std_package], false)?
        .into_iter()
        .find_map(|package| package.strip_prefix("libllvm").map(str::to_owned))
        .with_context(|| format!("{std_package} depends on no libllvm"))?;
    let lld = format!("lld-{llvm}");
    let mut packages = apt.depends(&[&lld], true)?;
    // The machine's own C and C++ libraries are the right ones for its own suites.
    packages.retain(|package| {
        !["libc6", "libgcc-s1", "libstdc++6"].contains(&package.as_str()) && !package.starts_with("gcc-")
    });
    packages.extend(
        ["rustc-web", "libstd-rust-web-dev", &std_package, "rust-web-src", "wasi-libc", &lld].map(str::to_owned),
    );
    Ok(packages)
}

/// The compiler with its finished std, the lld it recommends, and every library they need, libc included.
fn suite_packages(apt: &Apt) -> Result<BTreeSet<String>> {
    let std_package = apt.first_dependency("libstd-rust-dev")?;
    let recommends = apt.cache(&["show", "libstd-rust-dev-wasm32"])?;
    let lld = recommends
        .lines()
        .filter_map(|line| line.strip_prefix("Recommends:"))
        .flat_map(|list| list.split([',', ' ']))
        .find(|package| package.starts_with("lld-"))
        .context("libstd-rust-dev-wasm32 recommends no lld")?
        .to_owned();
    let mut packages = apt.depends(&[&std_package, &lld], true)?;
    packages.extend(["rustc", "libstd-rust-dev", "libstd-rust-dev-wasm32"].map(str::to_owned));
    Ok(packages)
}

/// apt on a root of its own: it knows the machine's mirrors and keys and nothing of what is installed.
struct Apt {
    work: PathBuf,
}

impl Apt {
    fn new(work: &Path, origin: Origin) -> Result<Self> {
        let root = work.join("apt");
        for dir in ["etc/apt/sources.list.d", "etc/apt/preferences.d", "var/lib/apt/lists/partial", "var/lib/dpkg"]
            .into_iter()
            .chain(["var/cache/apt/archives/partial", "debs"])
        {
            fs::create_dir_all(root.join(dir)).with_context(|| format!("create apt's {dir}"))?;
        }
        fs::write(root.join("var/lib/dpkg/status"), "").context("write an empty dpkg status")?;
        let root = root.to_str().context("the cache directory's name is not UTF-8")?;
        let configuration = format!(
            "Dir \"{root}/\";\nDir::State::status \"{root}/var/lib/dpkg/status\";\n\
             Dir::Etc::Parts \"/etc/apt/apt.conf.d\";\nDir::Etc::TrustedParts \"/etc/apt/trusted.gpg.d\";\n\
             APT::Sandbox::User \"root\";\nAcquire::Retries \"3\";\n"
        );
        fs::write(work.join("apt/apt.conf"), configuration).context("write apt.conf")?;
        write_sources(Path::new(root), origin)?;
        let apt = Self { work: work.to_owned() };
        run(apt.command("apt-get").args(["-qq", "update"]), "fetch Debian's package lists")?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.work.join("apt/debs"))
            .env("APT_CONFIG", self.work.join("apt/apt.conf"))
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C");
        command
    }

    fn cache(&self, arguments: &[&str]) -> Result<String> {
        run(self.command("apt-cache").args(arguments), &format!("look up {}", arguments.join(" ")))
    }

    /// The packages that `packages` depend on, directly or all the way down.
    fn depends(&self, packages: &[&str], recurse: bool) -> Result<BTreeSet<String>> {
        let mut arguments = vec!["depends", "--important"];
        if recurse {
            arguments.push("--recurse");
        }
        arguments.extend(packages);
        let listing = self.cache(&arguments)?;
        // Names at the margin are packages; `  Depends: name` are edges, and `<name>` stands for something virtual.
        let names = listing.lines().filter_map(|line| {
            let name = line.trim_start().strip_prefix("Depends: ").unwrap_or(line);
            name.starts_with(|first: char| first.is_ascii_lowercase()).then(|| name.to_owned())
        });
        Ok(names.collect())
    }

    fn first_dependency(&self, package: &str) -> Result<String> {
        let listing = self.cache(&["depends", package])?;
        listing
            .lines()
            .find_map(|line| line.trim_start().strip_prefix("Depends: "))
            .map(str::to_owned)
            .with_context(|| format!("{package} depends on nothing"))
    }

    /// Fetches the packages, checked against the signed lists, and unpacks them into `root`.
    fn unpack(&self, packages: &BTreeSet<String>) -> Result<()> {
        run(self.command("apt-get").args(["-qq", "download"]).args(packages), "fetch Debian packages")?;
        let root = self.work.join("root");
        for entry in fs::read_dir(self.work.join("apt/debs")).context("list the fetched packages")? {
            let package = entry.context("list the fetched packages")?.path();
            run(Command::new("dpkg").arg("-x").arg(&package).arg(&root), &format!("unpack {}", package.display()))?;
        }
        Ok(())
    }
}

fn write_sources(root: &Path, origin: Origin) -> Result<()> {
    let (new_style, old_style) =
        (Path::new("/etc/apt/sources.list.d/debian.sources"), Path::new("/etc/apt/sources.list"));
    match origin {
        Origin::Own if new_style.exists() => {
            fs::copy(new_style, root.join("etc/apt/sources.list.d/debian.sources")).context("copy debian.sources")?;
        }
        Origin::Own => {
            fs::copy(old_style, root.join("etc/apt/sources.list")).context("copy sources.list")?;
        }
        Origin::Suite => {
            let configured = fs::read_to_string(new_style).unwrap_or_default();
            let mirror = configured
                .lines()
                .find_map(|line| line.strip_prefix("URIs:"))
                .map_or("http://deb.debian.org/debian", str::trim);
            let source = format!(
                "Types: deb\nURIs: {mirror}\nSuites: {NEWER_SUITE}\nComponents: main\n\
                 Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
            );
            fs::write(root.join("etc/apt/sources.list.d/newer.sources"), source).context("write the newer suite")?;
        }
    }
    Ok(())
}

/// Writes `bin/rustc` and `bin/rust-lld` in `work`, which find everything under `home`.
fn write_wrappers(origin: Origin, work: &Path, home: &Path) -> Result<()> {
    let libraries = home.join("root/usr/lib").join(format!("{}-linux-gnu", env::consts::ARCH));
    let libraries = libraries.display();
    let llvm = only_llvm(work)?;
    let lld = home.join("root/usr/lib").join(&llvm).join("bin/lld");
    let llvm_libraries = home.join("root/usr/lib").join(&llvm).join("lib");
    let start = match origin {
        Origin::Own => format!("env LD_LIBRARY_PATH={libraries}:{}", llvm_libraries.display()),
        // A newer suite's programs need its newer libc, so its own loader has to start them.
        Origin::Suite => format!(
            "{} --library-path {libraries}:{}",
            home.join("root").join(loader()?).display(),
            llvm_libraries.display()
        ),
    };
    let sysroot = home.join("root/usr");
    let sysroot = sysroot.display();
    fs::create_dir_all(work.join("bin")).context("create bin")?;
    for (name, line) in [
        ("rustc", format!("exec {start} {sysroot}/bin/rustc --sysroot {sysroot} \"$@\"")),
        ("rust-lld", format!("exec {start} {} \"$@\"", lld.display())),
    ] {
        let path = work.join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{line}\n")).with_context(|| format!("write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("make {} executable", path.display()))?;
    }
    Ok(())
}

/// The name of the unpacked `llvm-N` directory that holds lld.
fn only_llvm(work: &Path) -> Result<String> {
    let entries = fs::read_dir(work.join("root/usr/lib")).context("look for the unpacked LLVM")?;
    entries
        .flatten()
        .filter(|entry| entry.path().join("bin/lld").exists())
        .find_map(|entry| entry.file_name().into_string().ok().filter(|name| name.starts_with("llvm-")))
        .context("the packages held no lld")
}

fn loader() -> Result<&'static str> {
    match env::consts::ARCH {
        "x86_64" => Ok("usr/lib64/ld-linux-x86-64.so.2"),
        "aarch64" => Ok("usr/lib/ld-linux-aarch64.so.1"),
        other => bail!("the program loader of {other} is not known here"),
    }
}

/// Compiles std for [`TARGET`] and puts it, with wasi-libc's start files, where rustc looks for it.
fn build_std(work: &Path) -> Result<()> {
    let libraries = work.join("root/usr/lib/rustlib").join(TARGET).join("lib");
    let self_contained = libraries.join("self-contained");
    fs::create_dir_all(&self_contained).context("create the target's library directory")?;
    for file in ["crt1-command.o", "crt1-reactor.o", "libc.a"] {
        fs::copy(work.join("root/usr/lib/wasm32-wasi").join(file), self_contained.join(file))
            .with_context(|| format!("copy wasi-libc's {file}"))?;
    }

    // Cargo compiles std for a crate that wants it; any crate will do.
    let wanting = work.join("std");
    fs::create_dir_all(wanting.join("src")).context("create a crate to build std for")?;
    let manifest = "[package]\nname = \"wants-std\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n";
    fs::write(wanting.join("Cargo.toml"), manifest).context("write the crate's manifest")?;
    fs::write(wanting.join("src/main.rs"), "fn main() {}\n").context("write the crate's source")?;

    // Without bitcode a guest with `lto = true` ends in "Can't find section .llvmbc". The path would stand in the panic
    // messages of every guest and make their digests differ from machine to machine.
    let flags = format!("-C embed-bitcode=yes --remap-path-prefix={}=/rust", work.join("root/usr").display());
    let mut cargo = super::Toolchain { unpacked: Some(work.to_owned()) }.cargo();
    cargo
        .current_dir(&wanting)
        .args(["build", "--quiet", "--release", "--target", TARGET, "-Z", "build-std=std,panic_abort"])
        .arg("--target-dir")
        .arg(wanting.join("target"))
        // Debian's compiler is a stable one; this is how it is asked for build-std.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s")
        .env("CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS", flags);
    run(&mut cargo, "compile std for wasm")?;

    let built = wanting.join("target").join(TARGET).join("release/deps");
    for entry in fs::read_dir(&built).context("list the compiled std")? {
        let path = entry.context("list the compiled std")?.path();
        if path.extension().is_some_and(|extension| extension == "rlib") {
            let name = path.file_name().context("a library without a name")?;
            fs::copy(&path, libraries.join(name)).with_context(|| format!("copy {}", path.display()))?;
        }
    }
    fs::remove_dir_all(&wanting).context("remove the crate std was built for")
}
