;; Copies standard input to standard output until its end. An error's number becomes the exit code.
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (func $check (param $error i32)
    (if (local.get $error) (then (call $proc_exit (local.get $error)))))
  (func (export "_start")
    (local $end i32)
    (loop $next
      ;; The buffer for reading: 4 KiB at 4096.
      (i32.store (i32.const 0) (i32.const 4096))
      (i32.store (i32.const 4) (i32.const 4096))
      (call $check (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (if (i32.eqz (i32.load (i32.const 8))) (then (return)))
      (local.set $end (i32.add (i32.const 4096) (i32.load (i32.const 8))))
      (loop $rest
        ;; What is left to write stands between (0) and $end.
        (i32.store (i32.const 4) (i32.sub (local.get $end) (i32.load (i32.const 0))))
        (call $check (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
        (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.load (i32.const 8))))
        (br_if $rest (i32.lt_u (i32.load (i32.const 0)) (local.get $end))))
      (br $next))))
