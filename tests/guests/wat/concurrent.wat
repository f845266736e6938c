;; A command of WASI 0.3 that writes a line, by an interface of 0.2, and ends, or sleeps for ever; words in @...@ are filled
;; in by wat.rs. It also exports `add`.
(module
  (import "wasi:clocks/monotonic-clock@0.2.12" "subscribe-duration" (func $subscribe (param i64) (result i32)))
  (import "wasi:io/poll@0.2.12" "[method]pollable.block" (func $block (param i32)))
  (import "wasi:cli/stdout@0.2.12" "get-stdout" (func $stdout (result i32)))
  (import "wasi:io/streams@0.2.12" "[method]output-stream.blocking-write-and-flush"
    (func $write (param i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 1024) "hello from WASI 0.3\n")

  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)

  (func (export "wasi:cli/run@0.3.0#run") (result i32)
    (call $write (call $stdout) (i32.const 1024) (i32.const 20) (i32.const 64))
    (if (i32.const @SLEEPS@)
      (then
        (loop $for_ever
          (call $block (call $subscribe (i64.const 3600000000000)))
          (br $for_ever))))
    (i32.const @RESULT@))

  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))
