;; A component that hands the second draft of `wasi:keyvalue` on: each function opens a bucket, calls one of its functions and
;; returns what that returned, or the error of the opening, which stand in memory alike.
(module
  (import "wasi:keyvalue/store@0.2.0-draft2" "open" (func $open (param i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft2" "[method]bucket.set" (func $set (param i32 i32 i32 i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft2" "[method]bucket.list-keys" (func $list_keys (param i32 i32 i32 i32 i32)))
  (import "wasi:keyvalue/atomics@0.2.0-draft2" "[static]cas.new" (func $cas (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/atomics@0.2.0-draft2" "swap" (func $swap (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/atomics@0.2.0-draft2" "increment" (func $increment (param i32 i32 i32 i64 i32)))
  (import "wasi:keyvalue/batch@0.2.0-draft2" "get-many" (func $get_many (param i32 i32 i32 i32)))
  (import "wasi:clocks/monotonic-clock@0.2.12" "subscribe-duration" (func $subscribe (param i64) (result i32)))
  (import "wasi:io/poll@0.2.12" "[method]pollable.block" (func $block (param i32)))
  ;; 512 results; what the host allocates, from 8192 on, is never given back.
  (memory (export "memory") 2)
  (global $free (mut i32) (i32.const 8192))

  (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (local $start i32)
    (local.set $start
      (i32.and
        (i32.sub (i32.add (global.get $free) (local.get $align)) (i32.const 1))
        (i32.sub (i32.const 0) (local.get $align))))
    (global.set $free (i32.add (local.get $start) (local.get $size)))
    (local.get $start))

  ;; The bucket, or none (0) and its error at 512, as the error of a result whose payload stands at 4.
  (func $opened (param $name i32) (param $length i32) (result i32)
    (call $open (local.get $name) (local.get $length) (i32.const 512))
    (if (result i32) (i32.load8_u (i32.const 512)) (then (i32.const 0)) (else (i32.load (i32.const 516)))))

  ;; Sees a value, has it changed, and exchanges what it saw, until that is done: the number of tries.
  (func (export "contend") (param $name i32) (param $length i32) (param $key i32) (param $size i32)
    (param $value i32) (param $bytes i32) (result i32)
    (local $bucket i32)
    (local $seen i32)
    (local $tries i32)
    (local.set $bucket (call $opened (local.get $name) (local.get $length)))
    (if (i32.eqz (local.get $bucket)) (then (return (i32.const 512))))
    (call $cas (local.get $bucket) (local.get $key) (local.get $size) (i32.const 512))
    (if (i32.load8_u (i32.const 512)) (then (return (i32.const 512))))
    (local.set $seen (i32.load (i32.const 516)))
    (call $set (local.get $bucket) (local.get $key) (local.get $size) (local.get $key) (local.get $size) (i32.const 512))
    (loop $again
      (local.set $tries (i32.add (local.get $tries) (i32.const 1)))
      (call $swap (local.get $seen) (local.get $value) (local.get $bytes) (i32.const 640))
      (if (i32.load8_u (i32.const 640))
        (then
          ;; 1: it was another value, and this is how it is now.
          (if (i32.ne (i32.load8_u (i32.const 644)) (i32.const 1)) (then (unreachable)))
          (local.set $seen (i32.load (i32.const 648)))
          (br $again))))
    (i32.store (i32.const 512) (i32.const 0))
    (i32.store (i32.const 516) (local.get $tries))
    (i32.const 512))

  (func (export "increment") (param $name i32) (param $length i32) (param $key i32) (param $size i32) (param $delta i64)
    (result i32)
    (local $bucket i32)
    (local.set $bucket (call $opened (local.get $name) (local.get $length)))
    (if (i32.eqz (local.get $bucket)) (then (unreachable)))
    (call $increment (local.get $bucket) (local.get $key) (local.get $size) (local.get $delta) (i32.const 512))
    (i32.const 512))

  (func (export "list-keys") (param $name i32) (param $length i32) (param $has i32) (param $cursor i32) (param $bytes i32)
    (result i32)
    (local $bucket i32)
    (local.set $bucket (call $opened (local.get $name) (local.get $length)))
    (if (local.get $bucket)
      (then (call $list_keys (local.get $bucket) (local.get $has) (local.get $cursor) (local.get $bytes) (i32.const 512))))
    (i32.const 512))

  (func (export "get-many") (param $name i32) (param $length i32) (param $keys i32) (param $count i32) (result i32)
    (local $bucket i32)
    (local.set $bucket (call $opened (local.get $name) (local.get $length)))
    (if (local.get $bucket)
      (then (call $get_many (local.get $bucket) (local.get $keys) (local.get $count) (i32.const 512))))
    (i32.const 512))

  (func (export "wasi:cli/run@0.2.12#run") (result i32)
    (loop $for_ever
      (call $block (call $subscribe (i64.const 3600000000000)))
      (br $for_ever))
    (unreachable)))
