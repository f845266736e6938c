;; A library: its functions are called one by one, each in an instance of its own.
(module
  (global $begun (mut i32) (i32.const 0))
  (func (export "_initialize") @INITIALIZE@ (global.set $begun (i32.const 1)))
  ;; Both numbers and 1, if the library has begun.
  (func (export "add") (param i32 i32) (result i32)
    (i32.add (i32.add (local.get 0) (local.get 1)) (global.get $begun))))
