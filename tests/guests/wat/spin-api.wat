;; A component of a Spin application. Answers with its variable `greeting`, what follows its route, and how that stands in
;; its key-value store after it was written there; or with status 500 if it lacks any of these.
(module
  (import "wasi:http/types@0.2.12" "[method]incoming-request.headers" (func $headers (param i32) (result i32)))
  (import "wasi:http/types@0.2.12" "[method]fields.get" (func $field (param i32 i32 i32 i32)))
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
  (import "fermyon:spin/variables@2.0.0" "get" (func $variable (param i32 i32 i32)))
  (import "fermyon:spin/key-value@2.0.0" "[static]store.open" (func $open (param i32 i32 i32)))
  (import "fermyon:spin/key-value@2.0.0" "[method]store.set" (func $set (param i32 i32 i32 i32 i32 i32)))
  (import "fermyon:spin/key-value@2.0.0" "[method]store.get" (func $get (param i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 1024) "greeting")
  (data (i32.const 1040) "spin-path-info")
  (data (i32.const 1060) "default")
  (data (i32.const 1070) "\n")

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

  (func $answer (param $out i32) (param $status i32) (result i32)
    (local $response i32)
    (local.set $response (call $new_response (call $new_fields)))
    (drop (call $set_status_code (local.get $response) (local.get $status)))
    (call $response_body (local.get $response) (i32.const 64))
    ;; The response is an ok (0); the arguments after it would describe an error.
    (call $set_response (local.get $out) (i32.const 0) (local.get $response)
      (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
    (i32.load (i32.const 68)))

  (func $line (param $output i32) (param $text i32) (param $length i32)
    (call $write (local.get $output) (local.get $text) (local.get $length) (i32.const 64))
    (call $write (local.get $output) (i32.const 1070) (i32.const 1) (i32.const 64)))

  (func (export "wasi:http/incoming-handler@0.2.12#handle") (param $request i32) (param $out i32)
    (local $rest i32)
    (local $rest_length i32)
    (local $greeting i32)
    (local $greeting_length i32)
    (local $store i32)
    (local $body i32)
    (local $output i32)
    (block $failed
      ;; The header's values come to 64 as a list; the first stands where that begins.
      (call $field (call $headers (local.get $request)) (i32.const 1040) (i32.const 14) (i32.const 64))
      (br_if $failed (i32.eqz (i32.load (i32.const 68))))
      (local.set $rest (i32.load (i32.load (i32.const 64))))
      (local.set $rest_length (i32.load offset=4 (i32.load (i32.const 64))))
      (call $variable (i32.const 1024) (i32.const 8) (i32.const 64))
      (br_if $failed (i32.load8_u (i32.const 64)))
      (local.set $greeting (i32.load (i32.const 68)))
      (local.set $greeting_length (i32.load (i32.const 72)))
      (call $open (i32.const 1060) (i32.const 7) (i32.const 64))
      (br_if $failed (i32.load8_u (i32.const 64)))
      (local.set $store (i32.load (i32.const 68)))
      (call $set (local.get $store) (i32.const 1024) (i32.const 8)
        (local.get $rest) (local.get $rest_length) (i32.const 64))
      (br_if $failed (i32.load8_u (i32.const 64)))
      (call $get (local.get $store) (i32.const 1024) (i32.const 8) (i32.const 128))
      (br_if $failed (i32.load8_u (i32.const 128)))

      (local.set $body (call $answer (local.get $out) (i32.const 200)))
      (call $body_write (local.get $body) (i32.const 64))
      (local.set $output (i32.load (i32.const 68)))
      (call $line (local.get $output) (local.get $greeting) (local.get $greeting_length))
      (call $line (local.get $output) (local.get $rest) (local.get $rest_length))
      (call $line (local.get $output) (i32.load (i32.const 136)) (i32.load (i32.const 140)))
      (call $drop_output (local.get $output))
      (call $body_finish (local.get $body) (i32.const 0) (i32.const 0) (i32.const 64))
      (return))
    (call $body_finish (call $answer (local.get $out) (i32.const 500)) (i32.const 0) (i32.const 0) (i32.const 64))))
