//! `hosts.toml` as its documentation has it.

use super::*;

fn read_for(registry: &str, text: &str) -> Result<Vec<Endpoint>, String> {
    parse(text, &Origin { directory: Path::new("/certs.d/r"), registry, plain: false, is_default: false })
}

fn bases(endpoints: &[Endpoint]) -> Vec<&str> {
    endpoints.iter().map(|endpoint| endpoint.base.as_str()).collect()
}

#[test]
fn mirrors_come_in_their_order_and_the_registry_last() {
    let text = r#"
server = "https://registry-1.docker.io"

[host."https://zebra.example"]
  capabilities = ["pull"]
[host."http://mirror.example:5000/docker"]
  capabilities = ["pull", "resolve"]
  ca = "mirror.crt"
  skip_verify = true
  dial_timeout = "500ms"
[host."antelope.example/path/v2"]
  client = [["client.cert", "client.key"]]
[host."antelope.example/raw"]
  override_path = true
"#;
    let found = read_for("docker.io", text).unwrap();
    let wanted = [
        "https://zebra.example/v2",
        "http://mirror.example:5000/docker/v2",
        "https://antelope.example/path/v2",
        "https://antelope.example/raw",
        "https://registry-1.docker.io/v2",
    ];
    assert_eq!(bases(&found), wanted);
    let can = |at: usize| (found[at].pulls, found[at].resolves, found[at].takes_pushes);
    assert_eq!((can(0), can(1), can(2)), ((true, false, false), (true, true, false), (true, true, true)));
    assert_eq!(found[1].tls.authorities, [Path::new("/certs.d/r/mirror.crt")]);
    assert_eq!((found[1].tls.skip_verify, found[1].connect_timeout), (true, Some(Duration::from_millis(500))));
    let identity = ("/certs.d/r/client.cert".into(), Some("/certs.d/r/client.key".into()));
    assert_eq!(found[2].tls.identity, Some(identity));
    let stand_in: Vec<Option<&str>> = found.iter().map(|endpoint| endpoint.stands_for.as_deref()).collect();
    assert_eq!(stand_in, [Some("docker.io"), Some("docker.io"), Some("docker.io"), Some("docker.io"), None]);
}

#[test]
fn credentials_are_for_the_registry_and_not_for_mirrors() {
    let own = |text: &str, is_default: bool| -> Vec<bool> {
        let of = Origin { directory: Path::new("/d"), registry: "r.example", plain: false, is_default };
        parse(text, &of).unwrap().iter().map(|endpoint| endpoint.is_own).collect()
    };
    assert_eq!(own("[host.\"https://mirror.example\"]", false), [false, true]);
    assert_eq!(own("server = \"https://10.0.0.5\"", false), [true]);
    assert_eq!(own("server = \"https://mirror.example\"", true), [false]);
    assert_eq!(own("[host.\"https://mirror.example\"]", true), [false, true]);
}

#[test]
fn the_server_has_fields_of_its_own() {
    let text =
        "ca = [\"a.pem\", \"/b.pem\"]\nproxy = \"http://proxy.example:3128\"\n[header]\n  x-a = [\"1\", \"2\"]\n";
    let found = read_for("r.example:5000", text).unwrap();
    assert_eq!(bases(&found), ["https://r.example:5000/v2"]);
    assert_eq!(found[0].tls.authorities, [Path::new("/certs.d/r/a.pem"), Path::new("/b.pem")]);
    assert_eq!(found[0].proxy.as_deref(), Some("http://proxy.example:3128/"));
    assert_eq!(found[0].headers.get_all("x-a").iter().count(), 2);
    assert!(!format!("{:?}", found[0].headers).contains('1'), "a header may be a secret");
    assert_eq!(found[0].stands_for, None);
}

#[test]
fn what_is_not_known_is_refused() {
    for (text, words) in [
        ("sever = \"https://r\"", "sever is not known"),
        ("[host.\"https://m\"]\n  capabilities = [\"fetch\"]", "host.\"https://m\": the capability \"fetch\""),
        ("[host.\"ftp://m\"]", "is no http or https URL"),
        ("[host.\"https://user:secret@m\"]", "no user"),
        ("skip_verify = \"yes\"", "true or false"),
        ("client = [\"a\", \"b\"]", "client must be one path"),
        ("proxy = \"socks5://p\"", "an http or https URL"),
        ("dial_timeout = \"soon\"", "a time such as"),
        ("[header]\n  x-a = \"sec\\nret\"", "header.x-a is no header"),
        ("server = ", "string"),
    ] {
        let error = read_for("r.example", text).unwrap_err();
        assert!(error.contains(words), "{text}: {error}");
        assert!(!error.contains("sec\nret"), "{error}");
    }
}

#[test]
fn the_directory_closest_to_the_name_is_read() {
    assert_eq!(names("r.example:5000"), ["r.example_5000_", "r.example:5000", "_default"]);
    assert_eq!(names("r.example"), ["r.example", "_default"]);
    let directory = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("_default/hosts.toml", "[host.\"https://everybody.example\"]");
    write("docker/ca.crt", "");
    write("r.example/ca.crt", "");
    write("r.example/me.cert", "");
    let of = |registry| endpoints(directory.path(), registry, false).unwrap();
    assert_eq!(bases(&of("other.example")), ["https://everybody.example/v2", "https://other.example/v2"]);
    let own = of("r.example");
    assert_eq!(own[0].tls.authorities, [directory.path().join("r.example/ca.crt")]);
    let identity = (directory.path().join("r.example/me.cert"), Some(directory.path().join("r.example/me.key")));
    assert_eq!(own[0].tls.identity, Some(identity));
}
