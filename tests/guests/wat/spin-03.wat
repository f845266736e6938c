;; A component of a Spin application, of WASI 0.3. Answers with the request's own body and status 200 and as many more as its
;; variable `greeting` has bytes, once it has set and found a key in its store; with 500 if it lacks any of these.
(module
  (import "wasi:http/types@0.3.0" "[constructor]fields" (func $new_fields (result i32)))
  (import "wasi:http/types@0.3.0" "[static]request.consume-body" (func $consume (param i32 i32 i32)))
  (import "wasi:http/types@0.3.0" "[future-new-0][static]request.consume-body" (func $new_outcome (result i64)))
  (import "wasi:http/types@0.3.0" "[static]response.new" (func $new_response (param i32 i32 i32 i32 i32)))
  (import "wasi:http/types@0.3.0" "[method]response.set-status-code"
    (func $set_status_code (param i32 i32) (result i32)))
  (import "spin:variables/variables@3.0.0" "get" (func $variable (param i32 i32 i32)))
  (import "spin:key-value/key-value@3.0.0" "[static]store.open" (func $open (param i32 i32 i32)))
  (import "spin:key-value/key-value@3.0.0" "[method]store.set" (func $set (param i32 i32 i32 i32 i32 i32)))
  (import "spin:key-value/key-value@3.0.0" "[method]store.exists" (func $exists (param i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 1024) "greeting")
  (data (i32.const 1060) "default")

  ;; What the host allocates, from 8192 on, is never given back.
  (global $free (mut i32) (i32.const 8192))
  (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (local $start i32)
    (local.set $start
      (i32.and
        (i32.sub (i32.add (global.get $free) (local.get $align)) (i32.const 1))
        (i32.sub (i32.const 0) (local.get $align))))
    (global.set $free (i32.add (local.get $start) (local.get $size)))
    (local.get $start))

  (func $status (result i32)
    (local $greeting i32)
    (local $store i32)
    (block $failed
      (call $variable (i32.const 1024) (i32.const 8) (i32.const 64))
      (br_if $failed (i32.load8_u (i32.const 64)))
      (local.set $greeting (i32.load (i32.const 72)))
      (call $open (i32.const 1060) (i32.const 7) (i32.const 64))
      (br_if $failed (i32.load8_u (i32.const 64)))
      (local.set $store (i32.load (i32.const 68)))
      (call $set (local.get $store) (i32.const 1024) (i32.const 8) (i32.const 1024) (i32.const 8) (i32.const 64))
      (br_if $failed (i32.load8_u (i32.const 64)))
      (call $exists (local.get $store) (i32.const 1024) (i32.const 8) (i32.const 64))
      (br_if $failed (i32.load8_u (i32.const 64)))
      (br_if $failed (i32.eqz (i32.load8_u (i32.const 68))))
      (return (i32.add (i32.const 200) (local.get $greeting))))
    (i32.const 500))

  (func (export "wasi:http/handler@0.3.0#handle") (param $request i32) (result i32)
    (call $consume (local.get $request) (i32.wrap_i64 (call $new_outcome)) (i32.const 96))
    (call $new_response (call $new_fields)
      (i32.const 1) (i32.load (i32.const 96)) (i32.load (i32.const 100)) (i32.const 104))
    (drop (call $set_status_code (i32.load (i32.const 104)) (call $status)))
    ;; An ok (0) at 128, and what it holds at 136.
    (i32.store (i32.const 136) (i32.load (i32.const 104)))
    (i32.const 128)))
