;; Writes one text to a file descriptor and exits. The words in @...@ are filled in by wat.rs.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "@TEXT@")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.const @LENGTH@))
    (drop (call $fd_write (i32.const @DESCRIPTOR@) (i32.const 0) (i32.const 1) (i32.const 8)))
    (call $proc_exit (i32.const @CODE@))))
