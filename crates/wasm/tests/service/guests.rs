//! Guests that the test bed has not: written where they are used, as WebAssembly text.

/// Prints its arguments, then its environment, a line each.
pub(crate) fn shows_itself() -> Vec<u8> {
    let source = r#"
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  ;; Writes each of the $count strings that the table at $table points to; the zero at its end becomes a newline.
  (func $lines (param $table i32) (param $count i32)
    (local $end i32)
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $count)))
        (local.set $end (i32.load (local.get $table)))
        (i32.store (i32.const 8) (local.get $end))
        (block $found
          (loop $byte
            (br_if $found (i32.eqz (i32.load8_u (local.get $end))))
            (local.set $end (i32.add (local.get $end) (i32.const 1)))
            (br $byte)))
        (i32.store8 (local.get $end) (i32.const 10))
        (i32.store (i32.const 12) (i32.add (i32.const 1) (i32.sub (local.get $end) (i32.load (i32.const 8)))))
        (drop (call $fd_write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16)))
        (local.set $table (i32.add (local.get $table) (i32.const 4)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next))))
  (func (export "_start")
    (drop (call $args_sizes_get (i32.const 0) (i32.const 4)))
    (drop (call $args_get (i32.const 1024) (i32.const 8192)))
    (call $lines (i32.const 1024) (i32.load (i32.const 0)))
    (drop (call $environ_sizes_get (i32.const 0) (i32.const 4)))
    (drop (call $environ_get (i32.const 1024) (i32.const 8192)))
    (call $lines (i32.const 1024) (i32.load (i32.const 0)))))
"#;
    wat::parse_str(source).unwrap()
}

/// Writes 4 KiB of lines, 256 times over: 1 MiB as fast as it is taken.
pub(crate) fn floods() -> Vec<u8> {
    let line = "0123456789abcde\\n";
    let source = format!(
        r#"
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "{}")
  (func (export "_start")
    (local $left i32)
    (local.set $left (i32.const 256))
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.const 4096))
    (loop $next
      (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $next (local.get $left)))))
"#,
        line.repeat(256)
    );
    wat::parse_str(source).unwrap()
}

/// Writes the text `last words` to the file `dev/termination-log` of its first preopened directory, and exits with 1.
pub(crate) fn leaves_a_message() -> Vec<u8> {
    let source = r#"
(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "dev/termination-log")
  (data (i32.const 128) "last words")
  (func (export "_start")
    (call $proc_exit
      (if (result i32) (call $path_open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 19)
          (i32.const 0) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 16))
        (then (i32.const 99))
        (else
          (i32.store (i32.const 0) (i32.const 128))
          (i32.store (i32.const 4) (i32.const 10))
          (drop (call $fd_write (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 8)))
          (i32.const 1))))))
"#;
    wat::parse_str(source).unwrap()
}
