;; A component whose program sleeps for ever, and which says so when its container is asked to end.
(module
  (import "wasi:clocks/monotonic-clock@0.2.12" "subscribe-duration" (func $subscribe (param i64) (result i32)))
  (import "wasi:io/poll@0.2.12" "[method]pollable.block" (func $block (param i32)))
  (import "wasi:cli/stdout@0.2.12" "get-stdout" (func $stdout (result i32)))
  (import "wasi:io/streams@0.2.12" "[method]output-stream.blocking-write-and-flush"
    (func $write (param i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 1024) "asked to end\n")

  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)

  (func (export "wasi:cli/run@0.2.12#run") (result i32)
    (loop $for_ever
      (call $block (call $subscribe (i64.const 3600000000000)))
      (br $for_ever))
    unreachable)

  (func (export "wasklet:pod/stop-handler@0.1.0#handle")
    (call $write (call $stdout) (i32.const 1024) (i32.const 13) (i32.const 64))))
