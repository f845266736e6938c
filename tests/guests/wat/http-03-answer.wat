;; Answers every request, as WASI 0.3 has it, with one status and one text, which is written after the answer has begun.
;; The words in @...@ are filled in by wat.rs.
(module
  (import "wasi:http/types@0.3.0" "[constructor]fields" (func $new_fields (result i32)))
  (import "wasi:http/types@0.3.0" "[resource-drop]request" (func $drop_request (param i32)))
  (import "wasi:http/types@0.3.0" "[static]response.new" (func $new_response (param i32 i32 i32 i32 i32)))
  (import "wasi:http/types@0.3.0" "[method]response.set-status-code"
    (func $set_status_code (param i32 i32) (result i32)))
  (import "wasi:http/types@0.3.0" "[stream-new-0][static]response.new" (func $new_stream (result i64)))
  (import "wasi:http/types@0.3.0" "[async-lower][stream-write-0][static]response.new"
    (func $write_stream (param i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.3.0" "[stream-drop-writable-0][static]response.new" (func $drop_stream (param i32)))
  (import "wasi:http/types@0.3.0" "[future-new-1][static]response.new" (func $new_trailers (result i64)))
  (import "wasi:http/types@0.3.0" "[async-lower][future-write-1][static]response.new"
    (func $write_trailers (param i32 i32) (result i32)))
  (import "wasi:http/types@0.3.0" "[future-drop-writable-1][static]response.new" (func $drop_trailers (param i32)))
  (import "wasi:http/types@0.3.0" "[future-drop-readable-2][static]response.new" (func $drop_sent (param i32)))
  (import "[export]wasi:http/handler@0.3.0" "[task-return]handle"
    (func $answer (param i32 i32 i32 i64 i32 i32 i32 i32)))
  (import "$root" "[waitable-set-new]" (func $new_set (result i32)))
  (import "$root" "[waitable-set-wait]" (func $wait_for (param i32 i32) (result i32)))
  (import "$root" "[waitable-join]" (func $join (param i32 i32)))
  (import "$root" "[waitable-set-drop]" (func $drop_set (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 1024) "@TEXT@")

  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)

  ;; How many requests this instance has had, where the status tells of it.
  (global $requests (mut i32) (i32.const 0))
  (func $status (result i32) @STATUS@)

  ;; Waits for a write that has not been taken yet (-1).
  (func $see_through (param $end i32) (param $state i32)
    (local $set i32)
    (if (i32.eq (local.get $state) (i32.const -1))
      (then
        (local.set $set (call $new_set))
        (call $join (local.get $end) (local.get $set))
        (drop (call $wait_for (local.get $set) (i32.const 80)))
        (call $join (local.get $end) (i32.const 0))
        (call $drop_set (local.get $set)))))

  (func (export "[async-lift]wasi:http/handler@0.3.0#handle") (param $request i32) (result i32)
    (local $stream i64)
    (local $trailers i64)
    (local $response i32)
    (local $sent i32)
    (local $end i32)
    (call $drop_request (local.get $request))
    ;; The lower half is the readable end, which the response gets, the upper half the writable one.
    (local.set $stream (call $new_stream))
    (local.set $trailers (call $new_trailers))
    (call $new_response (call $new_fields)
      (i32.const 1) (i32.wrap_i64 (local.get $stream)) (i32.wrap_i64 (local.get $trailers)) (i32.const 64))
    (local.set $response (i32.load (i32.const 64)))
    (local.set $sent (i32.load (i32.const 68)))
    (drop (call $set_status_code (local.get $response) (call $status)))
    ;; The answer is an ok (0); what comes after it would describe an error.
    (call $answer (i32.const 0) (local.get $response)
      (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))

    (local.set $end (i32.wrap_i64 (i64.shr_u (local.get $stream) (i64.const 32))))
    (call $see_through (local.get $end)
      (call $write_stream (local.get $end) (i32.const 1024) (i32.const @LENGTH@)))
    (call $drop_stream (local.get $end))
    ;; Zeros are an ok of no trailers.
    (local.set $end (i32.wrap_i64 (i64.shr_u (local.get $trailers) (i64.const 32))))
    (call $see_through (local.get $end) (call $write_trailers (local.get $end) (i32.const 256)))
    (call $drop_trailers (local.get $end))
    (call $drop_sent (local.get $sent))
    ;; It is over (0).
    (i32.const 0))

  (func (export "[callback][async-lift]wasi:http/handler@0.3.0#handle") (param i32 i32 i32) (result i32) unreachable))
