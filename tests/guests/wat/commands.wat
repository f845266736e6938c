;; Several commands in one, told apart by the first two letters of their name: `show` writes its arguments and
;; environment, a line each; `fail` complains and exits with 7; `spin` computes without end; `boom` traps; `flood` writes
;; without end; every other sleeps for ever. Beside it are exported `add`, and `unlucky`, which traps.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  ;; 0..64 results and vectors; 256 a complaint; 512 a subscription; 1024 a table of strings, 8192 the strings.
  (memory (export "memory") 1)
  (data (i32.const 256) "this command fails\n")

  ;; Writes each of the $count strings that the table points to; the zero at its end becomes a newline.
  (func $lines (param $count i32)
    (local $table i32)
    (local $end i32)
    (local.set $table (i32.const 1024))
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

  (func $show
    (call $lines (i32.load (i32.const 0)))
    (drop (call $environ_sizes_get (i32.const 0) (i32.const 4)))
    (drop (call $environ_get (i32.const 1024) (i32.const 8192)))
    (call $lines (i32.load (i32.const 0))))

  (func $complain (param $descriptor i32)
    (i32.store (i32.const 8) (i32.const 256))
    (i32.store (i32.const 12) (i32.const 19))
    (drop (call $fd_write (local.get $descriptor) (i32.const 8) (i32.const 1) (i32.const 16))))

  (func (export "_start")
    (local $letters i32)
    (drop (call $args_sizes_get (i32.const 0) (i32.const 4)))
    (drop (call $args_get (i32.const 1024) (i32.const 8192)))
    (local.set $letters (i32.add
      (i32.mul (i32.load8_u (i32.load (i32.const 1024))) (i32.const 256))
      (i32.load8_u offset=1 (i32.load (i32.const 1024)))))
    (if (i32.eq (local.get $letters) (i32.const 0x7368)) (then (call $show) (return)))
    (if (i32.eq (local.get $letters) (i32.const 0x6661))
      (then (call $complain (i32.const 2)) (call $proc_exit (i32.const 7))))
    (if (i32.eq (local.get $letters) (i32.const 0x7370)) (then (loop $spin (br $spin))))
    (if (i32.eq (local.get $letters) (i32.const 0x626f)) (then unreachable))
    (if (i32.eq (local.get $letters) (i32.const 0x666c))
      (then (loop $flood (call $complain (i32.const 1)) (br $flood))))
    ;; A subscription to the monotonic clock (1), an hour from now.
    (i32.store (i32.const 528) (i32.const 1))
    (i64.store (i32.const 536) (i64.const 3600000000000))
    (loop $for_ever
      (drop (call $poll_oneoff (i32.const 512) (i32.const 576) (i32.const 1) (i32.const 640)))
      (br $for_ever)))

  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func $unlucky (export "unlucky") unreachable))
