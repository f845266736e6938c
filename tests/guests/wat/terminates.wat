;; A component whose program waits until its container is asked to end, says so, and then ends, or does not: words in
;; @...@ are filled in by wat.rs.
(module
  (import "wasklet:pod/lifecycle@0.1.0" "termination" (func $termination (result i32)))
  (import "wasklet:pod/lifecycle@0.1.0" "time-left" (func $time_left (param i32)))
  (import "wasi:io/poll@0.2.12" "[method]pollable.block" (func $block (param i32)))
  (import "wasi:io/poll@0.2.12" "[resource-drop]pollable" (func $drop_pollable (param i32)))
  (import "wasi:cli/stdout@0.2.12" "get-stdout" (func $stdout (result i32)))
  (import "wasi:io/streams@0.2.12" "[method]output-stream.blocking-write-and-flush"
    (func $write (param i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 1024) "waiting\nending\n")

  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)

  (func $say (param $text i32) (param $length i32)
    (call $write (call $stdout) (local.get $text) (local.get $length) (i32.const 64)))

  (func (export "wasi:cli/run@0.2.12#run") (result i32)
    (local $asked i32)
    (local.set $asked (call $termination))
    ;; Nobody has asked yet: none (0).
    (call $time_left (i32.const 128))
    (if (i32.load8_u (i32.const 128)) (then unreachable))
    (call $say (i32.const 1024) (i32.const 8))
    (call $block (local.get $asked))
    (call $drop_pollable (local.get $asked))
    (call $time_left (i32.const 128))
    (if (i32.eqz (i32.load8_u (i32.const 128))) (then unreachable))
    (call $say (i32.const 1032) (i32.const 7))
    @END@
    (i32.const 0)))
