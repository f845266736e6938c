;; Takes every request and never answers it, sleeping meanwhile.
(module
  (import "wasi:clocks/monotonic-clock@0.2.12" "subscribe-duration" (func $subscribe (param i64) (result i32)))
  (import "wasi:io/poll@0.2.12" "[method]pollable.block" (func $block (param i32)))
  (import "wasi:io/poll@0.2.12" "[resource-drop]pollable" (func $drop_pollable (param i32)))
  (memory (export "memory") 1)
  (func (export "wasi:http/incoming-handler@0.2.12#handle") (param $request i32) (param $out i32)
    (local $hour i32)
    (loop $for_ever
      (local.set $hour (call $subscribe (i64.const 3600000000000)))
      (call $block (local.get $hour))
      (call $drop_pollable (local.get $hour))
      (br $for_ever))))
