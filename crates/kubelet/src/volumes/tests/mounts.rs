//! Tests of what a container is to see of its pod's volumes, and of parts of them.

use cri::v1;
use decide::pod::Container;

use super::*;

fn container(pod: &Pod) -> &Container {
    pod.containers.iter().next().unwrap()
}

/// The mounts of a prepared pod with these volumes and mounts.
async fn mounts(root: &Root, of: &str, mounts: &str) -> Result<Vec<v1::Mount>, Failure> {
    let (pod, volumes) = (pod_of("u", "{}", of, mounts), volumes(root));
    volumes.prepare(&pod).await.unwrap();
    let env = [("NAME".to_owned(), "web-0".to_owned())];
    volumes.mounts(&pod, container(&pod), &env).await
}

/// Where a part of the emptyDir `room` is.
async fn part_of_room(root: &Root, part: &str) -> Result<PathBuf, Failure> {
    let mount = format!("[{{name: room, mountPath: /m, subPath: {part:?}}}]");
    mounts(root, "[{name: room, emptyDir: {}}]", &mount).await.map(|made| PathBuf::from(&made[0].host_path))
}

fn refused(message: &str) -> Failure {
    Failure::new("CreateContainerConfigError", message)
}

/// A pod whose emptyDir `room` is there, for guests to write to.
async fn with_room() -> (Root, PathBuf) {
    let root = Root::new();
    let room = part_of_room(&root, "").await.unwrap();
    (root, room)
}

#[tokio::test]
async fn mounts_name_the_directories_and_projected_files_are_read_only() {
    let (root, host) = (Root::new(), tempfile::tempdir().unwrap());
    symlink(host.path(), root.path().join("link")).unwrap();
    let of = format!(
        "[{{name: conf, configMap: {{name: m}}}}, {{name: room, emptyDir: {{}}}}, {{name: h, hostPath: {{path: {:?}}}}}, \
         {{name: files, image: {{reference: a/b}}}}]",
        root.path().join("link")
    );
    let wanted = "[{name: conf, mountPath: /etc/conf}, {name: room, mountPath: /tmp}, \
                  {name: room, mountPath: /ro, readOnly: true}, {name: h, mountPath: /srv}, \
                  {name: files, mountPath: /f, subPath: usr/share}]";
    let made = mounts(&root, &of, wanted).await.unwrap();
    let seen: Vec<_> = made
        .iter()
        .map(|mount| (mount.container_path.as_str(), PathBuf::from(&mount.host_path), mount.readonly))
        .collect();
    let room = root.volume("empty-dir", "room");
    let expected = [
        ("/etc/conf", root.volume("configmap", "conf"), true),
        ("/tmp", room.clone(), false),
        ("/ro", room, true),
        ("/srv", fs::canonicalize(host.path()).unwrap(), false),
        ("/f", PathBuf::new(), true),
    ];
    assert_eq!(seen, expected);
    assert_eq!(made[4].image_sub_path, "usr/share");
}

#[tokio::test]
async fn a_container_that_mounts_what_its_pod_has_not_is_refused() {
    let root = Root::new();
    let pod = pod_of("u", "{}", "[{name: room, emptyDir: {}}]", "[{name: room, mountPath: /m}]");
    let without = Pod { volumes: Vec::new(), ..pod.clone() };
    let volumes = volumes(&root);
    assert_eq!(volumes.mounts(&pod, container(&pod), &[]).await, Err(refused("the pod's volumes are not prepared")));
    volumes.prepare(&without).await.unwrap();
    let problem = refused("cannot find volume \"room\" to mount into container \"c\"");
    assert_eq!(volumes.mounts(&without, container(&pod), &[]).await, Err(problem));
}

#[tokio::test]
async fn a_part_that_is_not_there_is_made_with_the_volumes_own_mode() {
    let (root, room) = with_room().await;
    assert_eq!(part_of_room(&root, "a/./b//c/").await.unwrap(), room.join("a/b/c"));
    assert_eq!([mode(&room.join("a")), mode(&room.join("a/b/c"))], [0o777, 0o777]);
    // What is there stays as it is, a file too.
    fs::set_permissions(room.join("a"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(room.join("a/file"), "").unwrap();
    assert_eq!(part_of_room(&root, "a/file").await.unwrap(), room.join("a/file"));
    assert_eq!(part_of_room(&root, "a/new").await.unwrap(), room.join("a/new"));
    assert_eq!(mode(&room.join("a")), 0o700);
    let through_a_file = part_of_room(&root, "a/file/b").await.unwrap_err();
    assert_eq!(through_a_file, refused("failed to prepare subPath for volumeMount \"room\" of container \"c\""));
}

#[tokio::test]
async fn a_part_of_a_host_path_is_made_as_well() {
    let (root, host) = (Root::new(), tempfile::tempdir().unwrap());
    fs::set_permissions(host.path(), fs::Permissions::from_mode(0o750)).unwrap();
    let of = format!("[{{name: h, hostPath: {{path: {:?}}}}}]", host.path());
    let made = mounts(&root, &of, "[{name: h, mountPath: /m, subPathExpr: 'pods/$(NAME)'}]").await.unwrap();
    let part = fs::canonicalize(host.path()).unwrap().join("pods/web-0");
    assert_eq!((Path::new(&made[0].host_path), mode(&part)), (&*part, 0o750));
    let missing = mounts(&root, &of, "[{name: h, mountPath: /m, subPathExpr: $(NONE)}]").await.unwrap_err();
    assert_eq!(missing, refused("missing value for NONE"));
}

#[tokio::test]
async fn a_link_leads_as_far_as_it_stays_in_the_volume() {
    let (root, room) = with_room().await;
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir_all(room.join("real/deep")).unwrap();
    symlink("real", room.join("near")).unwrap();
    symlink("../room/real", room.join("round")).unwrap();
    assert_eq!(part_of_room(&root, "near/deep").await.unwrap(), room.join("real/deep"));
    assert_eq!(part_of_room(&root, "near/new").await.unwrap(), room.join("real/new"));
    assert_eq!(part_of_room(&root, "round/deep").await.unwrap(), room.join("real/deep"));

    symlink(outside.path(), room.join("out")).unwrap();
    symlink("../../..", room.join("up")).unwrap();
    symlink("loop", room.join("loop")).unwrap();
    let prepare = refused("failed to prepare subPath for volumeMount \"room\" of container \"c\"");
    for part in ["out", "out/made", "up", "up/etc-hosts", "loop"] {
        assert_eq!(part_of_room(&root, part).await.unwrap_err(), prepare, "{part}");
    }
    // Where nothing is, something would have to be made.
    symlink(outside.path().join("gone"), room.join("dangling")).unwrap();
    let make = refused("failed to create subPath directory for volumeMount \"room\" of container \"c\"");
    for part in ["dangling", "dangling/made"] {
        assert_eq!(part_of_room(&root, part).await.unwrap_err(), make, "{part}");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_part_of_projected_files_is_what_is_shown_now_and_gives_way_to_a_file() {
    let root = Root::new();
    let of = "[{name: conf, configMap: {name: m, items: [{key: k, path: part/one}]}}]";
    let part = async |path: &str| {
        let made = mounts(&root, of, &format!("[{{name: conf, mountPath: /m, subPath: {path}}}]")).await.unwrap();
        PathBuf::from(&made[0].host_path)
    };
    let (conf, one) = (root.volume("configmap", "conf"), part("part/one").await);
    assert_eq!(fs::read(&one).unwrap(), b"text");
    assert_eq!(one, conf.join(fs::read_link(conf.join("..data")).unwrap()).join("part/one"));

    // As the kubelet does, a directory where no file is; the file takes its place once there is one.
    assert_eq!(part("later").await, conf.join("later"));
    assert!(conf.join("later").is_dir());
    let later = "[{name: conf, configMap: {name: m, items: [{key: k, path: later}]}}]";
    volumes(&root).prepare(&pod(later)).await.unwrap();
    assert_eq!(fs::read(conf.join("later")).unwrap(), b"text");
}
