//! Command lines against what they set.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    flags: KubeletFlags,
}

fn parse(line: &str) -> Result<KubeletFlags, String> {
    let words = std::iter::once("kubelet").chain(line.split_whitespace());
    Command::try_parse_from(words).map(|command| command.flags).map_err(|error| error.to_string())
}

#[test]
fn reads_the_kubelets_own_notation() {
    let flags = parse(
        "--kubeconfig=/k --node-labels=a=b,c=d --register-node=false --anonymous-auth=false --v=4 --max-pods 7 \
         --sync-frequency 1m30s --register-with-taints=a=b:NoSchedule,c:NoExecute --insecure-registry h:5000 \
         --insecure-registry i --feature-gates=NodeSwap=false --authentication-token-webhook",
    )
    .unwrap();
    assert_eq!(flags.labels().unwrap(), BTreeMap::from([("a".into(), "b".into()), ("c".into(), "d".into())]));
    assert_eq!(flags.insecure_registry, ["h:5000", "i"]);
    let set = flags.as_configuration().unwrap();
    assert_eq!(set.register_node, Some(false));
    assert_eq!(set.logging.unwrap().verbosity, Some(4));
    assert_eq!(set.sync_frequency, Some(GoDuration::seconds(90)));
    let authentication = set.authentication.unwrap();
    assert_eq!(authentication.anonymous.enabled, Some(false));
    assert_eq!(authentication.webhook.enabled, Some(true));
    let taints = set.register_with_taints.unwrap();
    assert_eq!((taints[0].value.as_deref(), taints[0].effect.as_str()), (Some("b"), "NoSchedule"));
    assert_eq!((taints[1].value.as_deref(), taints[1].effect.as_str()), (None, "NoExecute"));
}

#[test]
fn refuses_by_name() {
    assert!(parse("--cgroup-driver=systemd").unwrap_err().contains("--cgroup-driver"));
    assert!(parse("--sync-frequency=soon").unwrap_err().contains("--sync-frequency"));
    let refused = |line| parse(line).unwrap().as_configuration().unwrap_err().to_string();
    assert!(refused("--feature-gates=X").contains("NAME=true"));
    assert!(refused("--register-with-taints=nonsense").contains("nonsense"));
}

#[test]
fn help_stays_readable() {
    let help = <Command as clap::CommandFactory>::command().render_help().to_string();
    for word in ["--kubeconfig <FILE>", "[default: 110]", "HTTP API:", "WASKLET_IMAGE_LAYOUT"] {
        assert!(help.contains(word), "{word} is missing in\n{help}");
    }
}
