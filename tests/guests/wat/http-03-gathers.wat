;; A handler of WASI 0.3 that answers a request as soon as its instance has had @COMPANY@ of them, without a body and with
;; the status 200 and how many those are by then. It looks again every 20 ms, and waits meanwhile without keeping others out.
;; The word in @...@ is filled in by wat.rs.
(module
  (import "wasi:clocks/monotonic-clock@0.3.0" "[async-lower]wait-for" (func $wait_for (param i64) (result i32)))
  (import "wasi:http/types@0.3.0" "[constructor]fields" (func $new_fields (result i32)))
  (import "wasi:http/types@0.3.0" "[resource-drop]request" (func $drop_request (param i32)))
  (import "wasi:http/types@0.3.0" "[static]response.new" (func $new_response (param i32 i32 i32 i32 i32)))
  (import "wasi:http/types@0.3.0" "[method]response.set-status-code"
    (func $set_status_code (param i32 i32) (result i32)))
  (import "wasi:http/types@0.3.0" "[future-new-1][static]response.new" (func $new_trailers (result i64)))
  (import "wasi:http/types@0.3.0" "[async-lower][future-write-1][static]response.new"
    (func $write_trailers (param i32 i32) (result i32)))
  (import "wasi:http/types@0.3.0" "[future-drop-writable-1][static]response.new" (func $drop_trailers (param i32)))
  (import "wasi:http/types@0.3.0" "[future-drop-readable-2][static]response.new" (func $drop_sent (param i32)))
  (import "[export]wasi:http/handler@0.3.0" "[task-return]handle"
    (func $answer (param i32 i32 i32 i64 i32 i32 i32 i32)))
  (import "$root" "[waitable-set-new]" (func $new_set (result i32)))
  (import "$root" "[waitable-set-wait]" (func $wait (param i32 i32) (result i32)))
  (import "$root" "[waitable-join]" (func $join (param i32 i32)))
  (import "$root" "[waitable-set-drop]" (func $drop_set (param i32)))
  (import "$root" "[subtask-drop]" (func $drop_subtask (param i32)))
  (import "$root" "[context-get-0]" (func $set_of_task (result i32)))
  (import "$root" "[context-set-0]" (func $keep_set (param i32)))
  (memory (export "memory") 1)
  (global $requests (mut i32) (i32.const 0))

  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)

  (func (export "[async-lift]wasi:http/handler@0.3.0#handle") (param $request i32) (result i32)
    (call $drop_request (local.get $request))
    (global.set $requests (i32.add (global.get $requests) (i32.const 1)))
    (call $keep_set (call $new_set))
    (call $look))

  ;; The event is a call that has returned (1, 2), or none (0) after a yield.
  (func (export "[callback][async-lift]wasi:http/handler@0.3.0#handle")
    (param $event i32) (param $subtask i32) (param $state i32) (result i32)
    (if (local.get $event)
      (then
        (call $join (local.get $subtask) (i32.const 0))
        (call $drop_subtask (local.get $subtask))))
    (call $look))

  ;; Gives what is to become of the task: it is over (0), is called again (1), or waits for a set (2, and the set above).
  (func $look (result i32)
    (local $call i32)
    (if (i32.ge_u (global.get $requests) (i32.const @COMPANY@))
      (then
        (call $drop_set (call $set_of_task))
        (call $respond)
        (return (i32.const 0))))
    (local.set $call (call $wait_for (i64.const 20000000)))
    ;; The lower half says how far it is (returned: 2), the upper one has its handle.
    (if (i32.eq (i32.and (local.get $call) (i32.const 15)) (i32.const 2)) (then (return (i32.const 1))))
    (call $join (i32.shr_u (local.get $call) (i32.const 4)) (call $set_of_task))
    (i32.or (i32.shl (call $set_of_task) (i32.const 4)) (i32.const 2)))

  (func $respond
    (local $trailers i64)
    (local $end i32)
    (local $set i32)
    (local.set $trailers (call $new_trailers))
    ;; No body (0); the response comes to 64, and how sending it went to 68.
    (call $new_response (call $new_fields)
      (i32.const 0) (i32.const 0) (i32.wrap_i64 (local.get $trailers)) (i32.const 64))
    (drop (call $set_status_code (i32.load (i32.const 64)) (i32.add (i32.const 200) (global.get $requests))))
    (call $drop_sent (i32.load (i32.const 68)))
    ;; The answer is an ok (0); what comes after it would describe an error.
    (call $answer (i32.const 0) (i32.load (i32.const 64))
      (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
    ;; Zeros are an ok of no trailers; a write that has not been taken yet (-1) is waited for.
    (local.set $end (i32.wrap_i64 (i64.shr_u (local.get $trailers) (i64.const 32))))
    (if (i32.eq (call $write_trailers (local.get $end) (i32.const 256)) (i32.const -1))
      (then
        (local.set $set (call $new_set))
        (call $join (local.get $end) (local.get $set))
        (drop (call $wait (local.get $set) (i32.const 80)))
        (call $join (local.get $end) (i32.const 0))
        (call $drop_set (local.get $set))))
    (call $drop_trailers (local.get $end))))
