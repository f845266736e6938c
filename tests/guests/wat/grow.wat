;; Takes memory, 1 MiB at a time, and touches each 64 KiB of it, until it is refused; then exits with 3.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (local $page i32)
    (local $last i32)
    (loop $more
      (local.set $page (memory.grow (i32.const 16)))
      (if (i32.eq (local.get $page) (i32.const -1))
        (then (call $proc_exit (i32.const 3))))
      (local.set $last (i32.add (local.get $page) (i32.const 16)))
      (loop $touch
        (i32.store8 (i32.shl (local.get $page) (i32.const 16)) (i32.const 1))
        (local.set $page (i32.add (local.get $page) (i32.const 1)))
        (br_if $touch (i32.lt_u (local.get $page) (local.get $last))))
      (br $more))))
