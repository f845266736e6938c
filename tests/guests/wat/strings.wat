;; Prints its environment or its arguments, one per line. @KIND@ is filled in by wat.rs: environ or args.
(module
  (import "wasi_snapshot_preview1" "@KIND@_sizes_get" (func $sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "@KIND@_get" (func $get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  ;; 1024 the pointers, as many as fit below 65536; then up to 1 MiB of strings.
  (memory (export "memory") 17)

  (func $check (param $error i32)
    (if (local.get $error) (then (call $proc_exit (local.get $error)))))

  (func (export "_start")
    (local $at i32)
    (local $end i32)
    (call $check (call $sizes_get (i32.const 0) (i32.const 4)))
    (call $check (call $get (i32.const 1024) (i32.const 65536)))
    ;; The strings stand one after the other; the zero that ends each becomes the end of a line.
    (local.set $at (i32.const 65536))
    (local.set $end (i32.add (local.get $at) (i32.load (i32.const 4))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (if (i32.eqz (i32.load8_u (local.get $at)))
          (then (i32.store8 (local.get $at) (i32.const 10))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))
    (i32.store (i32.const 0) (i32.const 65536))
    (block $written
      (loop $rest
        (br_if $written (i32.ge_u (i32.load (i32.const 0)) (local.get $end)))
        (i32.store (i32.const 4) (i32.sub (local.get $end) (i32.load (i32.const 0))))
        (call $check (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
        (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.load (i32.const 8))))
        (br $rest)))))
