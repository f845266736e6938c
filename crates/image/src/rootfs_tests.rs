//! Layers unpacked: what a layer adds, replaces and hides, and what it must not do.

use std::os::unix::fs::PermissionsExt;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use std::io::Write;
use tar::{Builder, EntryType, Header};

use super::*;

const WASM: &[u8] = b"\0asm\x01\0\0\0";
const LIMITS: UnpackLimits = UnpackLimits { bytes: 1 << 20, entries: 1000 };

/// A layer's archive, entry by entry, without the checks of a tool that means well.
struct Tar(Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn entry(mut self, kind: EntryType, path: &str, link: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(EntryType::Regular, path, "", 0o644, content)
    }

    fn directory(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path, "", 0o755, b"")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, target, 0o777, b"")
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, target, 0o644, b"")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

struct Made {
    directory: tempfile::TempDir,
    result: Result<Index, (usize, UnpackError)>,
}

impl Made {
    fn root(&self) -> PathBuf {
        self.directory.path().join("chain/fs")
    }

    fn rootfs(&self) -> Rootfs {
        self.result.as_ref().map_err(|(_, error)| error).unwrap();
        Rootfs::new(self.directory.path().join("chain"), Digest::of(b""), 0)
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root().join(path)).ok()
    }

    fn refusal(&self) -> String {
        assert_eq!(fs::read_dir(self.directory.path().join("outside")).unwrap().count(), 0);
        self.result.as_ref().unwrap_err().1.to_string()
    }
}

fn make_compressed(layers: &[(Vec<u8>, Digest)], limits: UnpackLimits) -> Made {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("chain")).unwrap();
    fs::create_dir(directory.path().join("outside")).unwrap();
    let write = |(position, (layer, digest)): (usize, &(Vec<u8>, Digest))| {
        let path = directory.path().join(position.to_string());
        fs::write(&path, layer).unwrap();
        (path, *digest)
    };
    let blobs: Vec<_> = layers.iter().enumerate().map(write).collect();
    let result = make(&directory.path().join("chain"), &blobs, limits);
    Made { directory, result }
}

fn make_from(layers: Vec<Tar>) -> Made {
    let layers: Vec<_> = layers.into_iter().map(Tar::bytes).collect();
    make_compressed(&layers.iter().map(|it| (it.clone(), Digest::of(it))).collect::<Vec<_>>(), LIMITS)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

#[test]
fn every_compression_gives_the_same_files() {
    let tar = Tar::new().file("etc/greeting", b"hello").bytes();
    let (first, second) = tar.split_at(700);
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"toc"].concat();
    let forms = [
        tar.clone(),
        gzip(&tar),
        // Of several members, as eStargz is.
        [gzip(first), gzip(second)].concat(),
        zstd(&tar),
        // Of several frames, some without data, as zstd:chunked is.
        [skippable.clone(), zstd(first), skippable.clone(), zstd(second), skippable].concat(),
    ];
    for form in forms {
        let made = make_compressed(&[(form, Digest::of(&tar))], LIMITS);
        assert_eq!(made.read("etc/greeting").as_deref(), Some("hello"), "{:?}", made.result);
    }
}

#[test]
fn layers_add_replace_and_hide() {
    let base = Tar::new()
        .directory("etc")
        .file("etc/a", b"a1")
        .file("etc/b", b"b1")
        .file("opt/old/x", b"x")
        .file("opt/old/y", b"y")
        .file("dir/file", b"f")
        .file("was-file", b"w");
    let upper = Tar::new()
        .file("etc/a", b"a2")
        .file("etc/.wh.b", b"")
        // What a layer brings itself stays, wherever in it the whiteout stands.
        .file("opt/old/z", b"z")
        .file("opt/old/.wh..wh..opq", b"")
        .file("opt/.wh.old", b"")
        .file("dir", b"now a file")
        .directory("was-file")
        .file(".wh.not-there", b"")
        .file("nowhere/.wh.x", b"")
        .file("etc/.wh..wh.plnk", b"");
    let made = make_from(vec![base, upper]);
    for (path, content) in [
        ("etc/a", Some("a2")),
        ("etc/b", None),
        ("opt/old/x", None),
        ("opt/old/y", None),
        ("opt/old/z", Some("z")),
        ("dir", Some("now a file")),
        ("etc/.wh.b", None),
        ("nowhere", None),
        ("etc/.wh..wh.plnk", None),
    ] {
        assert_eq!(made.read(path).as_deref(), content, "{path}: {:?}", made.result);
    }
    assert!(made.root().join("was-file").is_dir());
    assert!(!made.root().join("nowhere").exists());
}

#[test]
fn an_opaque_root_hides_all_that_was() {
    let upper = Tar::new().file("new", b"n").file(".wh..wh..opq", b"");
    let made = make_from(vec![Tar::new().file("old/x", b"x"), upper]);
    assert_eq!((made.read("old/x"), made.read("new").as_deref()), (None, Some("n")));
}

#[test]
fn links_lead_where_they_would_in_a_container() {
    let base = Tar::new()
        .file("bin/busybox", b"b")
        .symlink("bin/sh", "/bin/busybox")
        .symlink("lib", "usr/lib")
        .file("usr/lib/x", b"x")
        .symlink("usr/lib/up", "../../../../../etc/passwd")
        .file("etc/passwd", b"of the image")
        .hard_link("bin/ash", "bin/busybox")
        .hard_link("bin/sh2", "./bin/sh");
    // Through a link of the layer before, into the directory it leads to; and a new file breaks a hard link.
    let made = make_from(vec![base, Tar::new().file("lib/y", b"y").file("bin/ash", b"other")]);
    for (path, content) in [
        ("bin/sh", "b"),
        ("bin/sh2", "b"),
        ("bin/busybox", "b"),
        ("bin/ash", "other"),
        ("usr/lib/y", "y"),
        ("usr/lib/up", "of the image"),
    ] {
        assert_eq!(made.read(path).as_deref(), Some(content), "{path}: {:?}", made.result);
    }
    assert_eq!(fs::read_link(made.root().join("bin/sh")).unwrap(), Path::new("../bin/busybox"));
}

#[test]
fn nothing_leads_out_of_the_image() {
    let outside = |tar: Tar| make_from(vec![tar]);
    assert!(outside(Tar::new().file("../outside/x", b"x")).refusal().contains("leads out of the image"));
    assert!(outside(Tar::new().file("a/../../x", b"x")).refusal().contains("leads out of the image"));
    assert!(outside(Tar::new().hard_link("x", "../1")).refusal().contains("leads out of the image"));
    assert!(outside(Tar::new().hard_link("x", "missing")).refusal().contains("is not there"));
    for name in [".wh..", ".wh...", ".wh."] {
        assert!(outside(Tar::new().file(name, b"")).refusal().contains("hides nothing"), "{name}");
    }
    // An absolute path begins at the image's root, and so does a link that would lead beyond it.
    let made = outside(Tar::new().symlink("up", "../../outside").file("outside/own", b"").file("up/x", b"x"));
    assert_eq!(fs::read_dir(made.directory.path().join("outside")).unwrap().count(), 0);
    assert_eq!(made.read("outside/x").as_deref(), Some("x"), "{:?}", made.result);
    let made = outside(Tar::new().file("/etc/x", b"x"));
    assert_eq!(made.read("etc/x").as_deref(), Some("x"));
    // A link to a link that went through a directory which is a link.
    let twisted = Tar::new().directory("a/b").symlink("a/b/x", "../..").symlink("a/b/l", "x/../outside/y");
    let made = outside(twisted.directory("outside").file("a/b/l", b"replaced"));
    assert_eq!(made.read("a/b/l").as_deref(), Some("replaced"), "{:?}", made.result);
}

#[test]
fn what_a_guest_cannot_have_is_left_out() {
    let tar = Tar::new()
        .entry(EntryType::Char, "dev/null", "", 0o666, b"")
        .entry(EntryType::Block, "dev/sda", "", 0o660, b"")
        .entry(EntryType::Fifo, "run/pipe", "", 0o666, b"")
        .entry(EntryType::Regular, "bin/su", "", 0o6755, b"su")
        .entry(EntryType::Directory, "tmp", "", 0o1777, b"")
        .entry(EntryType::Regular, "secret", "", 0, b"s");
    let made = make_from(vec![tar]);
    let mode = |path: &str| fs::metadata(made.root().join(path)).map(|it| it.permissions().mode() & 0o7777).ok();
    assert_eq!((mode("dev/null"), mode("dev/sda"), mode("run/pipe")), (None, None, None));
    assert_eq!((mode("bin/su"), mode("tmp"), mode("secret")), (Some(0o755), Some(0o777), Some(0o400)));
}

#[test]
fn limits_hold_whatever_an_archive_claims() {
    let bomb = Tar::new().file("zeros", &vec![0; 2 << 20]).bytes();
    for form in [bomb.clone(), gzip(&bomb), zstd(&bomb)] {
        let made = make_compressed(&[(form, Digest::of(&bomb))], LIMITS);
        assert!(made.refusal().contains("unfold to more than 1048576 bytes"), "{}", made.refusal());
    }
    let mut many = Tar::new();
    for number in 0..1001 {
        many = many.directory(&format!("d{number}"));
    }
    assert!(make_from(vec![many]).refusal().contains("more than 1000 entries"));
    let name = Tar::new().entry(EntryType::GNULongName, "././@LongLink", "", 0, &vec![b'a'; 1_048_577]);
    let bytes = name.bytes();
    let limits = UnpackLimits { bytes: 1 << 30, ..LIMITS };
    let made = make_compressed(&[(bytes.clone(), Digest::of(&bytes))], limits);
    assert!(made.refusal().contains("a header has 1048577 bytes"), "{}", made.refusal());
}

#[test]
fn a_layer_is_what_its_configuration_says() {
    let tar = Tar::new().file("a", b"a").bytes();
    let made = make_compressed(&[(gzip(&tar), Digest::of(b"other"))], LIMITS);
    assert!(made.refusal().contains("its content has the digest"), "{}", made.refusal());
    let cut = &gzip(&tar)[..40];
    let made = make_compressed(&[(cut.to_vec(), Digest::of(&tar))], LIMITS);
    assert!(made.result.is_err());
    let cut = &tar[..600];
    let made = make_compressed(&[(cut.to_vec(), Digest::of(cut))], LIMITS);
    assert!(made.result.is_ok() || made.refusal().contains("archive"), "{:?}", made.result);
}

#[test]
fn long_names_are_read_from_the_headers_before_an_entry() {
    let long = format!("{}/x", "d".repeat(150));
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    builder.append_data(&mut header, &long, &b"x"[..]).unwrap();
    let pax = format!("{} path=p/{}\n", 3 + 1 + 7 + 120 + 1, "q".repeat(120));
    assert_eq!(pax.len(), 132);
    let mut tar = Tar(builder);
    tar = tar.entry(EntryType::XHeader, "pax", "", 0o644, pax.as_bytes()).file("short", b"y");
    let made = make_from(vec![tar]);
    assert_eq!(made.read(&long).as_deref(), Some("x"), "{:?}", made.result);
    assert_eq!(made.read(&format!("p/{}", "q".repeat(120))).as_deref(), Some("y"));
    let sizes = Tar::new().entry(EntryType::XHeader, "pax", "", 0, b"9 size=5\n").file("x", b"y");
    assert!(make_from(vec![sizes]).refusal().contains("two different sizes"));
}

/// A root file system with programs in it.
fn programs() -> Made {
    let base = Tar::new()
        .file("app.wasm", WASM)
        .file("usr/bin/tool", &[WASM, b"tool"].concat())
        .symlink("usr/bin/alias", "/usr/bin/tool")
        .hard_link("usr/bin/twin", "usr/bin/tool")
        .file("bin/elf", b"\x7fELF....")
        .file("entry.sh", b"#! /usr/bin/alias -x y\nexec")
        .file("loop.sh", b"#!/loop.sh\n")
        .file("gone.wasm", WASM)
        .file("changed.wasm", WASM)
        .file("dir.wasm/a", WASM)
        .file("text.wasm", b"hello");
    let upper = Tar::new()
        .file(".wh.gone.wasm", b"")
        .file("changed.wasm", b"text")
        .file("dir.wasm", b"text")
        .file("app2", &[WASM, b"2"].concat());
    make_from(vec![base, upper])
}

#[test]
fn a_command_means_what_it_would_on_linux() {
    let made = programs();
    let rootfs = made.rootfs();
    let tool = Digest::of(&[WASM, b"tool"].concat());
    let run = |args: &[&str], path: Option<&str>, working_dir: Option<&str>| {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let program = rootfs.program(&args, path, working_dir).unwrap();
        assert_eq!(Digest::of(&fs::read(&program.wasm.path).unwrap()), program.wasm.digest);
        (program.wasm.digest, program.args.join(" "))
    };
    assert_eq!(run(&["/app.wasm", "x"], None, None), (Digest::of(WASM), "/app.wasm x".into()));
    assert_eq!(run(&["./app.wasm"], None, None).0, Digest::of(WASM));
    assert_eq!(run(&["../app.wasm"], None, Some("/usr")).0, Digest::of(WASM));
    assert_eq!(run(&["/../../app2"], None, None).0, Digest::of(&[WASM, b"2"].concat()));
    for name in ["tool", "alias", "twin"] {
        assert_eq!(run(&[name, "x"], None, None), (tool, format!("{name} x")));
    }
    assert_eq!(run(&["app.wasm"], Some("/nowhere:/"), None).0, Digest::of(WASM));
    // A script's interpreter is run with one argument, and then the script's own words.
    assert_eq!(run(&["/entry.sh", "a"], None, None), (tool, "/usr/bin/alias -x y /entry.sh a".into()));
}

#[test]
fn a_command_that_is_no_wasm_is_refused_by_what_it_is() {
    let made = programs();
    let rootfs = made.rootfs();
    let refusal = |name: &str| rootfs.program(&[name.to_owned()], None, None).unwrap_err().to_string();
    assert!(refusal("elf").contains("exec format error: /bin/elf is a Linux program (ELF)"), "{}", refusal("elf"));
    assert!(refusal("/text.wasm").contains("/text.wasm is no program"));
    assert!(refusal("/changed.wasm").contains("is no program") && refusal("/dir.wasm").contains("is no program"));
    assert!(refusal("/loop.sh").contains("too many interpreters"));
    assert_eq!(refusal("missing"), "exec: \"missing\": no such file in the image: not found in $PATH");
    assert_eq!(refusal("/gone.wasm"), "exec: \"/gone.wasm\": no such file in the image");
    assert_eq!(refusal("/usr"), "exec: \"/usr\": no such file in the image");
    assert!(matches!(rootfs.program(&[], None, None), Err(ProgramError::NoCommand)));
    let files: Vec<_> = rootfs.wasm_files().unwrap().into_keys().collect();
    assert_eq!(files, ["app.wasm", "app2", "usr/bin/tool", "usr/bin/twin"].map(PathBuf::from));
}

#[test]
fn a_chain_is_computed_as_the_specification_says() {
    let [one, two] = [Digest::of(b"1"), Digest::of(b"2")];
    assert_eq!(chain(&[one]), one);
    assert_eq!(chain(&[one, two]), Digest::of(format!("{one} {two}").as_bytes()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn arbitrary_bytes_are_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000), form in 0..3_usize) {
        let magic: &[u8] = [&b""[..], &[0x1f, 0x8b, 8, 0], &[0x28, 0xb5, 0x2f, 0xfd]][form];
        let blob = [magic, &bytes].concat();
        // No bytes at all are an archive of nothing: what keeps them out is the digest.
        let made = make_compressed(&[(blob, Digest::of(b"another archive"))], LIMITS);
        prop_assert!(made.result.is_err());
    }

    #[test]
    fn a_damaged_archive_writes_nothing_outside(damage in proptest::collection::vec((0_usize..6000, any::<u8>()), 0..12)) {
        let mut tar = Tar::new()
            .file("a/b", b"content")
            .symlink("a/l", "../../outside")
            .hard_link("h", "a/b")
            .file("a/l/x", b"x")
            .file("a/.wh.b", b"")
            .bytes();
        let length = tar.len();
        for (at, byte) in damage {
            tar[at % length] = byte;
        }
        let digest = Digest::of(&tar);
        let made = make_compressed(&[(tar, digest)], LIMITS);
        prop_assert_eq!(fs::read_dir(made.directory.path().join("outside")).unwrap().count(), 0);
        prop_assert!(fs::read_dir(made.directory.path()).unwrap().count() == 3);
    }
}
