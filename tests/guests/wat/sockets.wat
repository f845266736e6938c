;; A component that opens sockets until it has 10,000 or is refused, says so, and sleeps for ever.
(module
  (import "wasi:sockets/udp-create-socket@0.2.12" "create-udp-socket" (func $create (param i32 i32)))
  (import "wasi:clocks/monotonic-clock@0.2.12" "subscribe-duration" (func $subscribe (param i64) (result i32)))
  (import "wasi:io/poll@0.2.12" "[method]pollable.block" (func $block (param i32)))
  (import "wasi:cli/stdout@0.2.12" "get-stdout" (func $stdout (result i32)))
  (import "wasi:io/streams@0.2.12" "[method]output-stream.blocking-write-and-flush"
    (func $write (param i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 1024) "all\nrefused\n")

  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)

  (func (export "wasi:cli/run@0.2.12#run") (result i32)
    (local $left i32)
    (local.set $left (i32.const 10000))
    (block $refused
      (loop $next
        (call $create (i32.const 0) (i32.const 64))
        (br_if $refused (i32.load8_u (i32.const 64)))
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (br_if $next (local.get $left)))
      (call $write (call $stdout) (i32.const 1024) (i32.const 4) (i32.const 64)))
    (if (local.get $left)
      (then (call $write (call $stdout) (i32.const 1028) (i32.const 8) (i32.const 64))))
    (loop $for_ever
      (call $block (call $subscribe (i64.const 3600000000000)))
      (br $for_ever))
    unreachable))
