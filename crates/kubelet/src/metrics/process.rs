//! What this process costs, from /proc.
//!
//! Goes out: the `process_*` metrics. One that the kernel does not tell is left out.

use std::fs;

use super::family::{write_sample, write_type};

/// Writes them all.
pub(super) fn render(out: &mut String) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let open_files = fs::read_dir("/proc/self/fd").map(|entries| super::as_f64(entries.count())).ok();
    let ticks = rustix::param::clock_ticks_per_second();
    let page = rustix::param::page_size();
    let stat = Stat::parse(&stat, &boot, ticks as f64, super::as_f64(page));
    let gauges = [
        ("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", "counter", stat.cpu_seconds),
        ("process_resident_memory_bytes", "Resident memory size in bytes.", "gauge", stat.resident_bytes),
        ("process_virtual_memory_bytes", "Virtual memory size in bytes.", "gauge", stat.virtual_bytes),
        (
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            "gauge",
            stat.start_seconds,
        ),
        ("process_open_fds", "Number of open file descriptors.", "gauge", open_files),
        ("process_max_fds", "Maximum number of open file descriptors.", "gauge", most_files(&limits)),
    ];
    for (name, help, kind, value) in gauges {
        if let Some(value) = value {
            write_type(out, name, help, kind);
            write_sample(out, name, &[], value);
        }
    }
}

#[derive(Debug, Default, PartialEq)]
struct Stat {
    cpu_seconds: Option<f64>,
    start_seconds: Option<f64>,
    virtual_bytes: Option<f64>,
    resident_bytes: Option<f64>,
}

impl Stat {
    /// Fields of /proc/self/stat, counted from 1 as in proc(5): 14 and 15 CPU, 22 start, 23 and 24 memory.
    fn parse(stat: &str, boot: &str, ticks: f64, page: f64) -> Self {
        // The second field is a name in parentheses that may hold anything.
        let rest: Vec<&str> =
            stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
        let field = |number: usize| rest.get(number - 3).and_then(|text| text.parse::<f64>().ok());
        let booted =
            boot.lines().find_map(|line| line.strip_prefix("btime ")).and_then(|text| text.parse::<f64>().ok());
        Self {
            cpu_seconds: field(14).zip(field(15)).map(|(user, system)| (user + system) / ticks),
            start_seconds: field(22).zip(booted).map(|(start, booted)| booted + start / ticks),
            virtual_bytes: field(23),
            resident_bytes: field(24).map(|pages| pages * page),
        }
    }
}

fn most_files(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_fields() {
        let stat = "7 (a) b) S 1 1 1 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 1000 4096000 10 18446744073709551615";
        let wanted = Stat {
            cpu_seconds: Some(2.0),
            start_seconds: Some(510.0),
            virtual_bytes: Some(4_096_000.0),
            resident_bytes: Some(40_960.0),
        };
        assert_eq!(Stat::parse(stat, "cpu 1\nbtime 500\n", 100.0, 4096.0), wanted);
        assert_eq!(Stat::parse("", "", 100.0, 4096.0), Stat::default());
        assert_eq!(most_files("Limit Soft\nMax open files            1024   4096   files"), Some(1024.0));
    }
}
