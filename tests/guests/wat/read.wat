;; Prints the file its first argument names, found under the preopened directory whose name is the longest match.
;; An error's number becomes the exit code: 44 (noent) when there is no such file, 76 (notcapable) when no preopened
;; directory matches, 28 (inval) without an argument.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func $fd_prestat_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_dir_name" (func $fd_prestat_dir_name (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  ;; 0..64 results and vectors; 1024 argv; 4096 its strings; 8192 a preopened name; 16384 the file's content.
  (memory (export "memory") 2)

  (func $check (param $error i32)
    (if (local.get $error) (then (call $proc_exit (local.get $error)))))

  (func $length (param $string i32) (result i32)
    (local $end i32)
    (local.set $end (local.get $string))
    (block $found
      (loop $next
        (br_if $found (i32.eqz (i32.load8_u (local.get $end))))
        (local.set $end (i32.add (local.get $end) (i32.const 1)))
        (br $next)))
    (i32.sub (local.get $end) (local.get $string)))

  ;; Whether the path begins with the $size bytes at 8192, which end where a part of the path ends.
  (func $is_under (param $path i32) (param $size i32) (result i32)
    (local $at i32)
    (local $byte i32)
    (loop $next
      (if (i32.lt_u (local.get $at) (local.get $size))
        (then
          (if (i32.ne
                (i32.load8_u (i32.add (local.get $path) (local.get $at)))
                (i32.load8_u (i32.add (i32.const 8192) (local.get $at))))
            (then (return (i32.const 0))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br $next))))
    ;; "/" ends a part itself; after any other name the path has to go on with a slash.
    (if (i32.eq (local.get $size) (i32.const 1)) (then (return (i32.const 1))))
    (i32.eq (i32.load8_u (i32.add (local.get $path) (local.get $size))) (i32.const 0x2f)))

  (func (export "_start")
    (local $path i32)
    (local $descriptor i32)
    (local $size i32)
    (local $directory i32)
    (local $matched i32)
    (call $check (call $args_sizes_get (i32.const 0) (i32.const 4)))
    (if (i32.lt_u (i32.load (i32.const 0)) (i32.const 2)) (then (call $proc_exit (i32.const 28))))
    (call $check (call $args_get (i32.const 1024) (i32.const 4096)))
    (local.set $path (i32.load (i32.const 1028)))

    ;; The preopened directories are numbered from 3, and the first number that is none ends them.
    (local.set $descriptor (i32.const 3))
    (block $all_seen
      (loop $next
        (br_if $all_seen (call $fd_prestat_get (local.get $descriptor) (i32.const 0)))
        (local.set $size (i32.load (i32.const 4)))
        (call $check (call $fd_prestat_dir_name (local.get $descriptor) (i32.const 8192) (local.get $size)))
        (if (i32.and
              (i32.gt_u (local.get $size) (local.get $matched))
              (call $is_under (local.get $path) (local.get $size)))
          (then
            (local.set $matched (local.get $size))
            (local.set $directory (local.get $descriptor))))
        (local.set $descriptor (i32.add (local.get $descriptor) (i32.const 1)))
        (br $next)))
    (if (i32.eqz (local.get $directory)) (then (call $proc_exit (i32.const 76))))

    ;; The rest of the path, without the slash between.
    (local.set $path (i32.add (local.get $path) (local.get $matched)))
    (if (i32.eq (i32.load8_u (local.get $path)) (i32.const 0x2f))
      (then (local.set $path (i32.add (local.get $path) (i32.const 1)))))
    ;; Follow symbolic links (1), ask for reading (right 2).
    (call $check (call $path_open
      (local.get $directory) (i32.const 1) (local.get $path) (call $length (local.get $path))
      (i32.const 0) (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 8)))
    (local.set $descriptor (i32.load (i32.const 8)))
    (loop $more
      (i32.store (i32.const 0) (i32.const 16384))
      (i32.store (i32.const 4) (i32.const 4096))
      (call $check (call $fd_read (local.get $descriptor) (i32.const 0) (i32.const 1) (i32.const 12)))
      (if (i32.eqz (i32.load (i32.const 12))) (then (return)))
      (i32.store (i32.const 4) (i32.load (i32.const 12)))
      (call $check (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))
      (br $more))))
