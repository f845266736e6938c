;; A component with checks of its own health beside its program, which sleeps for ever: `liveness` is well, `readiness` is
;; not and says why, `startup` traps. `add` and `greet` are functions to be called by name. Words in @...@ are filled in
;; by wat.rs: the program is a command or an HTTP handler.
(module
  (import "wasi:clocks/monotonic-clock@0.2.12" "subscribe-duration" (func $subscribe (param i64) (result i32)))
  (import "wasi:io/poll@0.2.12" "[method]pollable.block" (func $block (param i32)))
  (import "wasi:io/poll@0.2.12" "[resource-drop]pollable" (func $drop_pollable (param i32)))
  ;; 512 results; 1024 texts; 2048 a greeting; what the host allocates, from 8192 on, is never given back.
  (memory (export "memory") 1)
  (data (i32.const 1024) "still warming up")
  (data (i32.const 1056) "hello, ")
  (global $free (mut i32) (i32.const 8192))

  (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (local $start i32)
    (local.set $start
      (i32.and
        (i32.sub (i32.add (global.get $free) (local.get $align)) (i32.const 1))
        (i32.sub (i32.const 0) (local.get $align))))
    (global.set $free (i32.add (local.get $start) (local.get $size)))
    (local.get $start))

  (func @PROGRAM@
    (local $hour i32)
    (loop $for_ever
      (local.set $hour (call $subscribe (i64.const 3600000000000)))
      (call $block (local.get $hour))
      (call $drop_pollable (local.get $hour))
      (br $for_ever))
    unreachable)

  (func (export "wasklet:probe/health@0.1.0#liveness") (result i32)
    (i32.store (i32.const 512) (i32.const 0))
    (i32.const 512))
  (func (export "wasklet:probe/health@0.1.0#readiness") (result i32)
    (i32.store (i32.const 512) (i32.const 1))
    (i32.store (i32.const 516) (i32.const 1024))
    (i32.store (i32.const 520) (i32.const 16))
    (i32.const 512))
  (func (export "wasklet:probe/health@0.1.0#startup") (result i32) unreachable)

  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "greet") (param $name i32) (param $length i32) (result i32)
    (memory.copy (i32.const 2048) (i32.const 1056) (i32.const 7))
    (memory.copy (i32.const 2055) (local.get $name) (local.get $length))
    (i32.store (i32.const 512) (i32.const 2048))
    (i32.store (i32.const 516) (i32.add (i32.const 7) (local.get $length)))
    (i32.const 512)))
