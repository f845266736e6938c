;; A command of WASI 0.3 that counts to 41 as it begins, writes a line, and waits for ever, without keeping calls of its other
;; functions out: `count` counts on and gives the number, `liveness` is well as long as its program has begun, `readiness` is
;; not and says why, `startup` and `unlucky` trap, `spin` computes without end.
(module
  (import "wasi:cli/stdout@0.2.12" "get-stdout" (func $stdout (result i32)))
  (import "wasi:io/streams@0.2.12" "[method]output-stream.blocking-write-and-flush"
    (func $write (param i32 i32 i32 i32)))
  (import "$root" "[waitable-set-new]" (func $new_set (result i32)))
  ;; 64 and 512 results; 1024 texts.
  (memory (export "memory") 1)
  (data (i32.const 1024) "still warming up")
  (data (i32.const 1056) "waiting\n")
  (global $count (mut i32) (i32.const 0))

  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)

  (func (export "[async-lift]wasi:cli/run@0.3.0#run") (result i32)
    (global.set $count (i32.const 41))
    (call $write (call $stdout) (i32.const 1056) (i32.const 8) (i32.const 64))
    ;; It waits (2) for a set that nothing is in.
    (i32.or (i32.shl (call $new_set) (i32.const 4)) (i32.const 2)))
  (func (export "[callback][async-lift]wasi:cli/run@0.3.0#run") (param i32 i32 i32) (result i32) unreachable)

  (func (export "wasklet:probe/health@0.1.0#liveness") (result i32)
    (i32.store (i32.const 512) (i32.eqz (global.get $count)))
    (i32.store (i32.const 516) (i32.const 1024))
    (i32.store (i32.const 520) (i32.const 16))
    (i32.const 512))
  (func (export "wasklet:probe/health@0.1.0#readiness") (result i32)
    (i32.store (i32.const 512) (i32.const 1))
    (i32.store (i32.const 516) (i32.const 1024))
    (i32.store (i32.const 520) (i32.const 16))
    (i32.const 512))
  (func (export "wasklet:probe/health@0.1.0#startup") (result i32) unreachable)

  (func (export "count") (result i32)
    (global.set $count (i32.add (global.get $count) (i32.const 1)))
    (global.get $count))
  (func (export "unlucky") unreachable)
  (func (export "spin") (loop $on (br $on))))
