;; A component of a Spin application that serves its files: what follows its route is a file's path. One that is not there
;; has status 404. Of a file at most 4096 bytes are sent.
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
  (import "wasi:filesystem/preopens@0.2.12" "get-directories" (func $directories (param i32)))
  (import "wasi:filesystem/types@0.2.12" "[method]descriptor.open-at"
    (func $open (param i32 i32 i32 i32 i32 i32 i32)))
  (import "wasi:filesystem/types@0.2.12" "[method]descriptor.read" (func $read (param i32 i64 i64 i32)))
  (memory (export "memory") 1)
  (data (i32.const 1040) "spin-path-info")

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

  ;; The root directory: the one whose path has one byte.
  (func $root (result i32)
    (local $entry i32)
    (local $end i32)
    (call $directories (i32.const 64))
    (local.set $entry (i32.load (i32.const 64)))
    (local.set $end (i32.add (local.get $entry) (i32.mul (i32.load (i32.const 68)) (i32.const 12))))
    (loop $next
      (if (i32.eq (local.get $entry) (local.get $end)) (then (unreachable)))
      (if (i32.eq (i32.load offset=8 (local.get $entry)) (i32.const 1))
        (then (return (i32.load (local.get $entry)))))
      (local.set $entry (i32.add (local.get $entry) (i32.const 12)))
      (br $next))
    (unreachable))

  (func (export "wasi:http/incoming-handler@0.2.12#handle") (param $request i32) (param $out i32)
    (local $path i32)
    (local $length i32)
    (local $body i32)
    (local $output i32)
    (block $missing
      (call $field (call $headers (local.get $request)) (i32.const 1040) (i32.const 14) (i32.const 64))
      (br_if $missing (i32.eqz (i32.load (i32.const 68))))
      (local.set $path (i32.load (i32.load (i32.const 64))))
      (local.set $length (i32.load offset=4 (i32.load (i32.const 64))))
      (br_if $missing (i32.le_u (local.get $length) (i32.const 1)))
      ;; Without its slash, following links (1), as it is (0), to be read (1).
      (call $open (call $root) (i32.const 1)
        (i32.add (local.get $path) (i32.const 1)) (i32.sub (local.get $length) (i32.const 1))
        (i32.const 0) (i32.const 1) (i32.const 64))
      (br_if $missing (i32.load8_u (i32.const 64)))
      (call $read (i32.load (i32.const 68)) (i64.const 4096) (i64.const 0) (i32.const 128))
      (br_if $missing (i32.load8_u (i32.const 128)))

      (local.set $body (call $answer (local.get $out) (i32.const 200)))
      (call $body_write (local.get $body) (i32.const 64))
      (local.set $output (i32.load (i32.const 68)))
      (call $write (local.get $output) (i32.load (i32.const 132)) (i32.load (i32.const 136)) (i32.const 64))
      (call $drop_output (local.get $output))
      (call $body_finish (local.get $body) (i32.const 0) (i32.const 0) (i32.const 64))
      (return))
    (call $body_finish (call $answer (local.get $out) (i32.const 404)) (i32.const 0) (i32.const 0) (i32.const 64))))
