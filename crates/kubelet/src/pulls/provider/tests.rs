//! Plugins that are scripts.

use std::os::unix::fs::PermissionsExt;

use super::*;

struct Bed {
    folder: tempfile::TempDir,
}

impl Bed {
    /// A plugin `helper` that is this shell script; it runs in the bed's folder.
    fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("helper");
        fs::write(&program, format!("#!/bin/sh\ncd {}\necho run >> runs\n{script}\n", folder.path().display()))
            .unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    fn read(&self, provider: &str) -> Result<Providers, ProviderError> {
        let config = self.folder.path().join("config.yaml");
        let head = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n";
        fs::write(&config, format!("{head}{provider}")).unwrap();
        Providers::read(&config, self.folder.path())
    }

    fn providers(&self) -> Providers {
        self.read(PROVIDER).unwrap()
    }

    fn runs(&self) -> usize {
        fs::read_to_string(self.folder.path().join("runs")).unwrap_or_default().lines().count()
    }
}

const PROVIDER: &str = "
- name: helper
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  matchImages: ['*.example', 'other.test:5000/team']
  defaultCacheDuration: 10m
  args: [first, second]
  env: [{name: GREETING, value: hello}]
";

fn answer(cache_key_type: &str, more: &str) -> String {
    format!(
        r#"cat > request; cat <<EOF
{{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"{cache_key_type}",{more}
"auth":{{"*.example":{{"username":"$1-$2-$GREETING","password":"s3cret"}}}}}}
EOF"#
    )
}

async fn logins(providers: &Providers, image: &str) -> (Vec<String>, Vec<String>) {
    let mut logins = Logins::default();
    providers.add(image, &mut logins).await;
    (logins.keyring.fitting(image).into_iter().map(|one| one.login.username).collect(), logins.hints)
}

#[tokio::test]
async fn a_plugin_is_asked_as_the_kubelet_asks() {
    let bed = Bed::new(&answer("Image", ""));
    let providers = bed.providers();
    assert_eq!(logins(&providers, "r.example/app:v1").await.0, ["first-second-hello"]);
    let request = fs::read_to_string(bed.folder.path().join("request")).unwrap();
    let request: serde_json::Value = serde_json::from_str(&request).unwrap();
    let wanted = serde_json::json!({"kind": "CredentialProviderRequest",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "image": "r.example/app"});
    assert_eq!(request, wanted);
    // What no place holds is none of its business.
    assert_eq!(logins(&providers, "other.test/app").await, (vec![], vec![]));
    assert_eq!(bed.runs(), 1);
}

#[tokio::test]
async fn answers_are_kept_for_what_and_as_long_as_they_say() {
    for (kind, more, runs) in [
        ("Image", "", [1, 1, 2, 3, 4]),
        ("Registry", "", [1, 1, 1, 2, 3]),
        ("Global", "", [1, 1, 1, 1, 2]),
        ("Global", r#""cacheDuration":"0s","#, [1, 2, 3, 4, 5]),
        ("Global", r#""cacheDuration":"24h","#, [1, 1, 1, 1, 1]),
    ] {
        let bed = Bed::new(&answer(kind, more));
        let providers = bed.providers();
        let mut seen = Vec::new();
        for image in ["a.example/one", "a.example/one:v2", "a.example/two", "b.example/one"] {
            logins(&providers, image).await;
            seen.push(bed.runs());
        }
        // A plugin runs by the real clock.
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(601)).await;
        tokio::time::resume();
        logins(&providers, "a.example/one").await;
        seen.push(bed.runs());
        assert_eq!(seen, runs, "{kind} {more}");
    }
}

#[tokio::test]
async fn a_plugin_that_fails_is_told_of_without_its_words() {
    let wrong_version = answer("Image", "").replace("k8s.io/v1\"", "k8s.io/v1beta1\"");
    for (script, words) in [
        ("echo s3cret; echo s3cret >&2; exit 3", "exit status: 3"),
        ("echo '{\"s3cret\":'", "no CredentialProviderResponse"),
        (wrong_version.as_str(), "it answered in credentialprovider.kubelet.k8s.io/v1beta1"),
        (&answer("Nothing", ""), "no CredentialProviderResponse"),
        ("head -c 3000000 /dev/zero", "more than 1048576 bytes"),
    ] {
        let bed = Bed::new(script);
        let (found, hints) = logins(&bed.providers(), "r.example/app").await;
        assert!(found.is_empty() && hints[0].contains(words), "{script}: {hints:?}");
        assert!(!hints[0].contains("s3cret"), "{hints:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_hangs_is_given_up() {
    let bed = Bed::new("sleep 1000");
    let (_, hints) = logins(&bed.providers(), "r.example/app").await;
    assert!(hints[0].contains("did not answer within 60 s"), "{hints:?}");
}

#[test]
fn a_configuration_that_cannot_be_kept_to_is_refused() {
    let bed = Bed::new("true");
    for (change, to, words) in [
        ("name: helper", "name: ../helper", "a name is that of a file"),
        ("name: helper", "name: missing", "there is no program"),
        ("k8s.io/v1", "k8s.io/v2", "apiVersion must be"),
        ("['*.example', 'other.test:5000/team']", "[]", "names no images"),
        ("['*.example', 'other.test:5000/team']", "['https://']", "is not HOST"),
        ("  defaultCacheDuration: 10m\n", "", "defaultCacheDuration is missing"),
        (
            "args:",
            "tokenAttributes: {serviceAccountTokenAudience: a}\n  args:",
            "ServiceAccounts for plugins are not supported",
        ),
        ("args:", "arguments:", "fields that are not known"),
    ] {
        let error = bed.read(&PROVIDER.replace(change, to)).unwrap_err().to_string();
        assert!(error.contains(words), "{to}: {error}");
    }
    let error = bed.read(&format!("{PROVIDER}{PROVIDER}")).unwrap_err().to_string();
    assert!(error.contains("named twice"), "{error}");
    assert!(bed.read("[]\n").is_err());
}
