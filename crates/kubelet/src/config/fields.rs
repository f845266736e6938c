//! What becomes of each field of `KubeletConfiguration` that wasklet does not act on.
//!
//! Every field of the real type stands in exactly one place: in [`super::KubeletConfiguration`] (honoured), in
//! [`MEANINGLESS`] (accepted with a warning: it steers something a wasm node does not have) or in [`NOT_YET`] (refused by
//! name unless it asks for what happens anyway). A name in none of them is unknown and refused.

/// Fields about Linux machinery that wasm pods do not use, each with the reason its value changes nothing.
pub(super) const MEANINGLESS: &[(&str, &str)] = &[
    ("cgroupDriver", NO_CGROUPS),
    ("cgroupRoot", NO_CGROUPS),
    ("cgroupsPerQOS", NO_CGROUPS),
    ("kubeletCgroups", NO_CGROUPS),
    ("systemCgroups", NO_CGROUPS),
    ("systemReservedCgroup", NO_CGROUPS),
    ("kubeReservedCgroup", NO_CGROUPS),
    ("enforceNodeAllocatable", NO_CGROUPS),
    ("failCgroupV1", NO_CGROUPS),
    ("kernelMemcgNotification", NO_CGROUPS),
    ("memoryThrottlingFactor", NO_CGROUPS),
    ("memoryReservationPolicy", NO_CGROUPS),
    ("singleProcessOOMKill", NO_CGROUPS),
    ("qosReserved", NO_CGROUPS),
    ("cpuManagerPolicy", NO_PINNING),
    ("cpuManagerPolicyOptions", NO_PINNING),
    ("cpuManagerReconcilePeriod", NO_PINNING),
    ("memoryManagerPolicy", NO_PINNING),
    ("topologyManagerPolicy", NO_PINNING),
    ("topologyManagerPolicyOptions", NO_PINNING),
    ("topologyManagerScope", NO_PINNING),
    ("makeIPTablesUtilChains", NO_IPTABLES),
    ("iptablesMasqueradeBit", NO_IPTABLES),
    ("iptablesDropBit", NO_IPTABLES),
    ("hairpinMode", "pods have addresses but no bridge"),
    ("podPidsLimit", "a guest has no processes"),
    ("oomScoreAdj", "the guests' memory is limited by the runtime, in the runtime's own process"),
    ("maxOpenFiles", "the limit of open files is left as the process was started with"),
    ("protectKernelDefaults", "no kernel tunable matters to a guest"),
    ("seccompDefault", "a guest has no system calls to filter"),
    ("failSwapOn", "wasklet does not look at swap"),
    ("contentType", "wasklet speaks JSON to the API server"),
    ("kubeAPIQPS", "requests to the API server are few and bounded by their own queues"),
    ("kubeAPIBurst", "requests to the API server are few and bounded by their own queues"),
];

const NO_CGROUPS: &str = "a guest has no cgroup";
const NO_PINNING: &str = "guests are not pinned to CPUs or memory nodes";
const NO_IPTABLES: &str = "wasklet writes no iptables rules";

/// Fields that are not supported yet, each with the values that ask for nothing more than what happens without it: what Go
/// takes for "not set", and the kubelet's default. Values are JSON; durations compare as durations.
pub(super) const NOT_YET: &[(&str, &[&str])] = &[
    ("tlsCipherSuites", EMPTY_LIST),
    ("tlsCurvePreferences", EMPTY_LIST),
    ("tlsMinVersion", &[r#""""#, r#""VersionTLS12""#]),
    ("rotateCertificates", &["false"]),
    ("serverTLSBootstrap", &["false"]),
    ("enableContentionProfiling", &["false"]),
    ("streamingConnectionIdleTimeout", &[r#""0s""#, r#""4h0m0s""#]),
    ("volumeStatsAggPeriod", &[r#""0s""#, r#""1m0s""#]),
    ("runOnce", &["false"]),
    ("cpuCFSQuota", &["true"]),
    ("cpuCFSQuotaPeriod", &[r#""0s""#, r#""100ms""#]),
    ("evictionSoft", EMPTY_MAP),
    ("evictionSoftGracePeriod", EMPTY_MAP),
    ("evictionPressureTransitionPeriod", &[r#""0s""#, r#""5m0s""#]),
    ("evictionMaxPodGracePeriod", &["0"]),
    ("evictionMinimumReclaim", EMPTY_MAP),
    ("podsPerCore", &["0"]),
    ("enableControllerAttachDetach", &["true"]),
    ("memorySwap", &["{}", r#"{"swapBehavior":""}"#, r#"{"swapBehavior":"NoSwap"}"#]),
    ("containerLogMaxSize", &[r#""""#, r#""10Mi""#]),
    ("containerLogMaxFiles", &["5"]),
    ("containerLogMaxWorkers", &["1"]),
    ("containerLogMonitorInterval", &[r#""0s""#, r#""10s""#]),
    ("configMapAndSecretChangeDetectionStrategy", &[r#""""#, r#""Watch""#]),
    ("reservedSystemCPUs", EMPTY_TEXT),
    ("showHiddenMetricsForVersion", EMPTY_TEXT),
    ("allowedUnsafeSysctls", EMPTY_LIST),
    ("defaultPodSysctls", EMPTY_MAP),
    ("volumePluginDir", &[r#""""#, r#""/usr/libexec/kubernetes/kubelet-plugins/volume/exec/""#]),
    ("enableSystemLogHandler", &["true", "false"]),
    ("enableSystemLogQuery", &["false"]),
    ("shutdownGracePeriod", &[r#""0s""#]),
    ("shutdownGracePeriodCriticalPods", &[r#""0s""#]),
    ("shutdownGracePeriodByPodPriority", EMPTY_LIST),
    ("reservedMemory", EMPTY_LIST),
    ("enableProfilingHandler", &["true", "false"]),
    ("enableDebugFlagsHandler", &["true", "false"]),
    ("tracing", &["null"]),
    ("localStorageCapacityIsolation", &["true"]),
    ("imageServiceEndpoint", EMPTY_TEXT),
    ("userNamespaces", &["{}"]),
];

const EMPTY_TEXT: &[&str] = &[r#""""#];
const EMPTY_LIST: &[&str] = &["[]"];
const EMPTY_MAP: &[&str] = &["{}"];

/// Every feature gate wasklet knows, with the one value it can have: nothing here is gated, so a gate can only be
/// confirmed.
pub(super) const FEATURE_GATES: &[(&str, bool)] = &[
    ("AllAlpha", false),
    ("AllBeta", false),
    ("ExtendWebSocketsToKubelet", false),
    ("KubeletFineGrainedAuthz", true),
    ("KubeletInUserNamespace", false),
    ("NodeSwap", false),
    ("RotateKubeletServerCertificate", false),
    ("UserNamespacesSupport", false),
];

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

    use super::*;
    use crate::config::KubeletConfiguration;

    /// Every field of the type in Kubernetes 1.37.
    const ALL: &str = "
        enableServer staticPodPath podLogsDir syncFrequency fileCheckFrequency httpCheckFrequency
        staticPodURL staticPodURLHeader address port readOnlyPort tlsCertFile tlsPrivateKeyFile
        tlsCipherSuites tlsCurvePreferences tlsMinVersion rotateCertificates serverTLSBootstrap
        authentication authorization registryPullQPS registryBurst imagePullCredentialsVerificationPolicy
        preloadedImagesVerificationAllowlist eventRecordQPS eventBurst enableDebuggingHandlers
        enableContentionProfiling healthzPort healthzBindAddress oomScoreAdj clusterDomain clusterDNS
        streamingConnectionIdleTimeout nodeStatusUpdateFrequency nodeStatusReportFrequency
        nodeLeaseDurationSeconds imageMinimumGCAge imageMaximumGCAge imageGCHighThresholdPercent
        imageGCLowThresholdPercent volumeStatsAggPeriod kubeletCgroups systemCgroups cgroupRoot
        cgroupsPerQOS cgroupDriver cpuManagerPolicy singleProcessOOMKill cpuManagerPolicyOptions
        cpuManagerReconcilePeriod memoryManagerPolicy topologyManagerPolicy topologyManagerScope
        topologyManagerPolicyOptions qosReserved runtimeRequestTimeout hairpinMode maxPods podCIDR
        podPidsLimit resolvConf runOnce cpuCFSQuota cpuCFSQuotaPeriod nodeStatusMaxImages maxOpenFiles
        contentType kubeAPIQPS kubeAPIBurst serializeImagePulls maxParallelImagePulls evictionHard
        evictionSoft evictionSoftGracePeriod evictionPressureTransitionPeriod evictionMaxPodGracePeriod
        evictionMinimumReclaim mergeDefaultEvictionSettings podsPerCore enableControllerAttachDetach
        protectKernelDefaults makeIPTablesUtilChains iptablesMasqueradeBit iptablesDropBit featureGates
        failSwapOn memorySwap containerLogMaxSize containerLogMaxFiles containerLogMaxWorkers
        containerLogMonitorInterval configMapAndSecretChangeDetectionStrategy systemReserved kubeReserved
        reservedSystemCPUs showHiddenMetricsForVersion systemReservedCgroup kubeReservedCgroup
        enforceNodeAllocatable allowedUnsafeSysctls defaultPodSysctls volumePluginDir providerID
        kernelMemcgNotification logging enableSystemLogHandler enableSystemLogQuery shutdownGracePeriod
        shutdownGracePeriodCriticalPods shutdownGracePeriodByPodPriority crashLoopBackOff reservedMemory
        enableProfilingHandler enableDebugFlagsHandler seccompDefault memoryThrottlingFactor
        memoryReservationPolicy registerWithTaints registerNode tracing localStorageCapacityIsolation
        containerRuntimeEndpoint imageServiceEndpoint failCgroupV1 userNamespaces
    ";

    fn is_honoured(name: &str) -> bool {
        let fields = Map::from_iter([(name.to_owned(), Value::Null)]);
        let outcome = serde_json::from_value::<KubeletConfiguration>(Value::Object(fields));
        outcome.map_or_else(|error| !error.to_string().starts_with("unknown field"), |_| true)
    }

    #[test]
    fn every_field_stands_in_exactly_one_place() {
        for name in ALL.split_whitespace() {
            let places = [
                is_honoured(name),
                MEANINGLESS.iter().any(|(known, _)| *known == name),
                NOT_YET.iter().any(|(known, _)| *known == name),
            ];
            assert_eq!(places.iter().filter(|place| **place).count(), 1, "{name}: {places:?}");
        }
        for name in MEANINGLESS.iter().map(|(name, _)| name).chain(NOT_YET.iter().map(|(name, _)| name)) {
            assert!(ALL.split_whitespace().any(|real| real == *name), "{name} is no field");
        }
    }

    #[test]
    fn harmless_values_are_json() {
        for (name, values) in NOT_YET {
            for value in *values {
                assert!(serde_json::from_str::<Value>(value).is_ok(), "{name}: {value}");
            }
        }
    }
}
