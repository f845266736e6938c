;; Answers every request with one status and one text. The words in @...@ are filled in by wat.rs.
(module
  (import "wasi:http/types@0.2.12" "[constructor]fields" (func $new_fields (result i32)))
  (import "wasi:http/types@0.2.12" "[constructor]outgoing-response" (func $new_response (param i32) (result i32)))
  (import "wasi:http/types@0.2.12" "[method]outgoing-response.set-status-code"
    (func $set_status_code (param i32 i32) (result i32)))
  (import "wasi:http/types@0.2.12" "[method]outgoing-response.body" (func $response_body (param i32 i32)))
  (import "wasi:http/types@0.2.12" "[static]response-outparam.set"
    (func $set_response (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.12" "[method]outgoing-body.write" (func $body_write (param i32 i32)))
  (import "wasi:http/types@0.2.12" "[static]outgoing-body.finish" (func $body_finish (param i32 i32 i32 i32)))
  (import "wasi:io/streams@0.2.12" "[method]output-stream.blocking-write-and-flush"
    (func $write (param i32 i32 i32 i32)))
  (import "wasi:io/streams@0.2.12" "[resource-drop]output-stream" (func $drop_output (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 1024) "@TEXT@")

  ;; Results that need memory come to 64; what the host allocates, from 8192 on, is never given back.
  (global $free (mut i32) (i32.const 8192))
  (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (local $start i32)
    (local.set $start
      (i32.and
        (i32.sub (i32.add (global.get $free) (local.get $align)) (i32.const 1))
        (i32.sub (i32.const 0) (local.get $align))))
    (global.set $free (i32.add (local.get $start) (local.get $size)))
    (local.get $start))

  ;; How many requests this instance has had, where the status tells of it.
  (global $requests (mut i32) (i32.const 0))
  (func $status (result i32) @STATUS@)

  (func (export "wasi:http/incoming-handler@0.2.12#handle") (param $request i32) (param $out i32)
    (local $response i32)
    (local $body i32)
    (local $output i32)
    (local.set $response (call $new_response (call $new_fields)))
    (drop (call $set_status_code (local.get $response) (call $status)))
    (call $response_body (local.get $response) (i32.const 64))
    (local.set $body (i32.load (i32.const 68)))
    ;; The response is an ok (0); the arguments after it would describe an error.
    (call $set_response (local.get $out) (i32.const 0) (local.get $response)
      (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
    (call $body_write (local.get $body) (i32.const 64))
    (local.set $output (i32.load (i32.const 68)))
    (call $write (local.get $output) (i32.const 1024) (i32.const @LENGTH@) (i32.const 64))
    (call $drop_output (local.get $output))
    ;; No trailers (0).
    (call $body_finish (local.get $body) (i32.const 0) (i32.const 0) (i32.const 64))))
